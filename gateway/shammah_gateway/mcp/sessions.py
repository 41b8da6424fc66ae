"""The sessions of the MCP eras with a handshake, by caller: each has few, and its longest unused one makes room.

All callers share one limit of the SDK: without this, the sessions of one caller would lock out all others for the half
hour that an unused session is kept. It knows ids and callers; how a session is ended is handed in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shammah_chassis.errors import OverloadedError

MAX_PER_CALLER = 16
RETRY_SECONDS = 1.0
End = Callable[[str], Awaitable[None]]


class Sessions:
    """The sessions of each caller in the order of their last use."""

    def __init__(self, most: int = MAX_PER_CALLER) -> None:
        self._most = most
        self._open: dict[str, OrderedDict[str, None]] = {}
        self._opening: Counter[str] = Counter()

    def use(self, caller: str, session: str) -> None:
        """Note that a session is used; one that is not the caller's is none."""
        if session in (own := self._open.get(caller, OrderedDict[str, None]())):
            own.move_to_end(session)

    def drop(self, caller: str, session: str) -> None:
        """Forget a session that has ended."""
        own = self._open.get(caller, OrderedDict[str, None]())
        own.pop(session, None)
        if not own:
            self._open.pop(caller, None)

    @asynccontextmanager
    async def opening(self, caller: str, end: End) -> AsyncIterator[Callable[[str], None]]:
        """Make room for one session more while the block opens it; it calls what it is given with the id.

        Raises:
            OverloadedError: so many of this caller are being opened that there is none to end.
        """
        counted = True
        self._opening[caller] += 1

        def close() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._opening[caller] -= 1
                if not self._opening[caller]:
                    del self._opening[caller]

        def note(session: str) -> None:
            # From here on it is open, while its first answer may still be on its way: it is not counted twice.
            close()
            self._open.setdefault(caller, OrderedDict())[session] = None

        try:
            while self._count(caller) > self._most:
                own = self._open.get(caller)
                if not own:
                    raise OverloadedError(
                        f"{self._most} sessions of yours are being opened already", retry_after_seconds=RETRY_SECONDS
                    )
                oldest = next(iter(own))
                self.drop(caller, oldest)
                await end(oldest)
            yield note
        finally:
            close()

    def _count(self, caller: str) -> int:
        return len(self._open.get(caller, ())) + self._opening[caller]
