"""Standard input and output as lines of JSON: nothing but the protocol leaves by the standard output.

It does not know what the lines mean.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import BinaryIO

_STDOUT = 1
_STDERR = 2


class Pipes:
    """Reads lines from `source` in a thread (a pipe, a file and a terminal alike) and writes lines to `target`."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    @classmethod
    def take_standard(cls) -> Pipes:
        """Take standard input and output; what anything else prints from now on goes to standard error."""
        own = os.fdopen(os.dup(_STDOUT), "wb")
        os.dup2(_STDERR, _STDOUT)
        return cls(sys.stdin.buffer, own)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield lines that are not empty, until the other side closes."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        # No executor: its threads are waited for at the exit, and this one may wait for input for ever.
        threading.Thread(target=self._read, args=(loop, arrived), daemon=True).start()
        while (line := await arrived.get()) is not None:
            if line.strip():
                yield line

    def write(self, line: bytes) -> None:
        """Write one line. A reader that went away is noticed by the end of its input."""
        try:
            self._target.write(line + b"\n")
            self._target.flush()
        except BrokenPipeError:
            return

    def _read(self, loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[bytes | None]) -> None:
        try:
            for line in self._source:
                loop.call_soon_threadsafe(arrived.put_nowait, line)
            loop.call_soon_threadsafe(arrived.put_nowait, None)
        except RuntimeError:
            # The loop ended first.
            return
