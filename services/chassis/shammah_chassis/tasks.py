"""Stopping of background tasks. It does not know what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.5


async def stop_tasks(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks and wait until they have ended.

    A task may lose a cancellation: `asyncio.wait_for` of Python 3.11 does when what it waits for ends in the same turn
    of the loop. So it is cancelled again until it ends.
    """
    running = {task for task in tasks if task is not None and not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_SECONDS)
