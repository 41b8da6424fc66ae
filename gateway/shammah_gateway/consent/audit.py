"""The audit log: who did what, what left the machine, and what it changed. Lines are added, never changed.

`note` returns when the line is on the disk, so that nothing is sent or changed that is not noted; `jot` does not wait.
Lines that come together share one fsync, in a thread of its own. It does not know what the events mean; how lines hang
together is `chain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shammah_chassis.errors import InvalidInputError, ShammahError, StorageFullError, UnavailableError

from shammah_gateway.consent.audit_file import AuditFile
from shammah_gateway.consent.chain import Head, Note

# Lines that nobody waits for, while the disk is full: beyond these the newest are counted and dropped.
MAX_WAITING = 10_000
BATCH = 1_000
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0
_Waiting = tuple[Note, "asyncio.Future[None] | None"]
_log = logging.getLogger(__name__)


class AuditLog:
    """The log in `folder`/audit.jsonl (0600). All methods belong on the event loop."""

    def __init__(self, folder: Path, *, max_bytes: int = 16 << 20, clock: Callable[[], float] = time.time) -> None:
        self._file = AuditFile(folder, max_bytes=max_bytes)
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._task: asyncio.Task[None] | None = None
        self._lost = 0
        self._failure: ShammahError | None = None
        self.lines = 0

    @property
    def head(self) -> Head:
        """The last line that is on the disk."""
        return self._file.head

    @property
    def warning(self) -> str:
        """What people should know: that the log can't be written now; "" when all is well."""
        if self._failure is None:
            return ""
        lost = f"; {self._lost} lines were dropped" if self._lost else ""
        return f"{self._failure.message}: tools and teaching are refused, queries go on{lost}"

    async def open(self) -> None:
        """Read where the chain ends.

        Raises:
            InvalidInputError: the end of the log is damaged. StorageFullError, UnavailableError: it can't be written.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.open)

    async def note(self, event: str, *, caller: str, what: Mapping[str, Any]) -> None:
        """Write a line and return when it is on the disk.

        Raises:
            StorageFullError: it can't be written, for want of room or another reason: what it is about must not happen.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put((Note(self._clock(), event, caller, what), done))
        await done

    def jot(self, event: str, *, caller: str, what: Mapping[str, Any]) -> None:
        """Write a line soon. One that can't be written is tried again; beyond ten thousand they are only counted."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._put((Note(self._clock(), event, caller, what), None))

    def check(self) -> None:
        """Raise StorageFullError while the log can't be written."""
        if self._failure is not None:
            raise _refuse(self._failure)

    async def close(self) -> None:
        """Write what waits, for at most five seconds, and close the file."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for _, done in self._waiting:
            if done is not None and not done.done():
                done.set_exception(UnavailableError("the gateway stops"))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    def _put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="audit log")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # After a failure it is tried again by itself, and at once when somebody waits for a line.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if self._failure else None):
                    await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                notes = [note for note, _ in batch]
                if self._lost:
                    notes.insert(0, Note(self._clock(), "lines_lost", "", {"lines": self._lost}))
                try:
                    await loop.run_in_executor(self._thread, self._file.append, notes)
                except (StorageFullError, UnavailableError, InvalidInputError) as error:
                    self._fail(error, batch)
                    break
                except asyncio.CancelledError:
                    self._waiting.extendleft(reversed(batch))
                    raise
                self._succeed(batch, len(notes))
            else:
                self._idle.set()

    def _succeed(self, batch: list[_Waiting], count: int) -> None:
        if self._failure is not None:
            _log.warning("the audit log can be written again")
        self._failure, self._lost = None, 0
        self.lines += count
        for _, done in batch:
            if done is not None and not done.done():
                done.set_result(None)

    def _fail(self, error: ShammahError, batch: list[_Waiting]) -> None:
        began = self._failure is None
        self._failure = error
        kept: list[_Waiting] = []
        for waiting in batch:
            done = waiting[1]
            if done is None:
                kept.append(waiting)
            elif not done.done():
                done.set_exception(_refuse(error))
        if began:
            _log.error("%s", error.message)
            # It is what is tried again by itself: without a line that waits, nothing would find that all is well again.
            kept.append((Note(self._clock(), "not_writable", "", {"problem": error.message}), None))
        self._waiting.extendleft(reversed(kept))


def _refuse(error: ShammahError) -> StorageFullError:
    """Return why something is refused that must be noted first."""
    return StorageFullError(f"refused, as it can't be noted: {error.message}", retry_after_seconds=RETRY_SECONDS)
