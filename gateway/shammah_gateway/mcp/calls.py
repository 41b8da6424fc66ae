"""The tool calls that run now, by the names a client knows them by; and how an explicit cancellation finds them.

A cancelled call stops its job; a call whose client just went away leaves it running. It knows no transport and no SDK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shammah_chassis.errors import UnavailableError
from shammah_chassis.scopes import Caller
from shammah_chassis.tasks import stop_tasks

from shammah_gateway.changes import Changes
from shammah_gateway.mcp.words import STOPPING

# ("session", caller, session id, id of the JSON-RPC request) or ("request", caller, the client's own request id).
Key = tuple[str, ...]
# A call whose waiting was ended answers within this time.
LAST_SECONDS = 1.0
StopJob = Callable[[Caller, str, str], Awaitable[None]]


def session_key(caller: Caller, session: str, number: object) -> Key:
    """Return the name of a call in a session of the handshake era."""
    return ("session", caller.name, session, str(number))


def request_key(caller: Caller, request_id: str) -> Key:
    """Return the name of a call that carries a request id."""
    return ("request", caller.name, request_id)


class StoppingError(UnavailableError):
    """The gateway stops while a call waits; the same call may be sent again when it is back."""

    code = STOPPING


@dataclass(slots=True, kw_only=True)
class Call:
    """One call that runs; `cancel` ends its waiting, `cancelled` says that its client asked for that."""

    caller: Caller
    tool: str
    request_id: str
    keys: tuple[Key, ...]
    cancel: Callable[[], None]
    cancelled: bool = False


class Calls:
    """All calls of one server; `stop_job` takes (caller, tool, request id) and stops the job of that call, if any."""

    def __init__(self, stop_job: StopJob) -> None:
        self._stop_job = stop_job
        self._running: dict[Key, Call] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._changed = Changes()
        self._open: dict[int, Call] = {}
        self.closing = False

    def begin(self, call: Call) -> None:
        """Know a call from now on."""
        self._open[id(call)] = call
        for key in call.keys:
            self._running[key] = call

    def end(self, call: Call) -> None:
        """Forget a call; the job of a cancelled one is stopped in the background."""
        self._open.pop(id(call), None)
        self._changed.notify()
        for key in call.keys:
            if self._running.get(key) is call:
                del self._running[key]
        # What ends because the gateway stops was cancelled by nobody.
        if call.cancelled and not self.closing:
            task = asyncio.create_task(self._stop(call), name=f"stop {call.tool}")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def cancel(self, key: Key) -> bool:
        """Cancel the call of this name; says whether there was one."""
        call = self._running.get(key)
        if call is None:
            return False
        call.cancelled = True
        call.cancel()
        return True

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Let calls end for at most this long, then end their waiting; from then on no job is stopped."""
        await self._changed.wait_until(lambda: not self._open, drain_seconds)
        self.closing = True
        for call in list(self._open.values()):
            call.cancel()
        await self._changed.wait_until(lambda: not self._open, LAST_SECONDS)
        await stop_tasks(list(self._stopping))

    async def _stop(self, call: Call) -> None:
        await self._stop_job(call.caller, call.tool, call.request_id)
