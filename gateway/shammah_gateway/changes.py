"""A bell that wakes everyone who waits for "something changed". It carries no value: the waiter looks for itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable


class Changes:
    """Wakes all waiters; a change between looking and waiting can't be missed, as neither gives up the loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake everyone who waits now."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, timeout: float) -> None:
        """Return at the next change, or after `timeout` seconds."""
        event = self._event
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout)):
                await event.wait()

    async def wait_until(self, happened: Callable[[], bool], timeout: float) -> bool:
        """Wait until `happened()`; returns False when it has not within `timeout` seconds."""
        end = time.monotonic() + timeout
        while not happened():
            left = end - time.monotonic()
            if left <= 0:
                return False
            await self.wait(left)
        return True
