"""Writes the ledger behind the traffic: half a second after a change, at once when asked to. It knows no money."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from shammah_chassis.errors import ShammahError

from shammah_gateway.money.store import LedgerFile

# A crash loses at most this and the time of one write: under a second.
PAUSE_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Keeper:
    """Keeps one file up to date; `render` returns the image of now. Without a file it does nothing.

    `warning` says why the last write failed, "" when it did not; it is tried again.
    """

    def __init__(self, file: LedgerFile | None, render: Callable[[], bytes]) -> None:
        self._file = file
        self._render = render
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._closed = False
        self.warning = ""

    def note(self) -> None:
        """Say that something changed: it is written soon, off the event loop; outside a loop or after `close`, now."""
        if self._file is None or self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or self._closed:
            self._save_quietly()
        else:
            self._timer = loop.call_later(PAUSE_SECONDS, self._begin, loop)

    def save(self) -> None:
        """Write now and wait for the disk.

        Raises:
            StorageFullError, UnavailableError: as `LedgerFile.write`.
        """
        if self._file is None:
            return
        self._number += 1
        self._file.write(self._render(), self._number)
        self.warning = ""

    def save_behind(self, done: Callable[[bool], None]) -> bool:
        """Write the image of now off the event loop; `done` is then called on it with whether that worked.

        Returns False, and does nothing, where there is no file or no loop.
        """
        if self._file is None or self._closed:
            return False
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        written = self._write_behind(loop, self._file)
        written.add_done_callback(lambda ended: done(not ended.cancelled() and ended.exception() is None))
        return True

    async def close(self) -> None:
        """Write what is there; a disk that fails now is logged."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.to_thread(self._save_quietly)
        if self._writer is not None:
            self._writer.shutdown(wait=True)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._file is not None and not self._closed:
            self._write_behind(loop, self._file)

    def _write_behind(self, loop: asyncio.AbstractEventLoop, file: LedgerFile) -> asyncio.Future[None]:
        """Take the image on the loop, where the books are still, and write it in a thread of our own."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._number += 1
        done = loop.run_in_executor(self._writer, file.write, self._render(), self._number)
        done.add_done_callback(self._end)
        return done

    def _end(self, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is None:
            self.warning = ""
            return
        self._warn(error)
        self.note()

    def _save_quietly(self) -> None:
        try:
            self.save()
        except ShammahError as error:
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        text = error.message if isinstance(error, ShammahError) else repr(error)
        if text != self.warning:
            _log.warning("the ledger of teacher calls is not kept: %s", text)
        self.warning = text
