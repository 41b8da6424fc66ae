"""A bounded pool of threads for blocking work: inference, loading.

More work than may wait is refused at once with a hint, so that a queue never hides an overload. It does not know what
the work is.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from shammah_chassis.errors import OverloadedError

P = ParamSpec("P")
R = TypeVar("R")
_LEAST_HINT_SECONDS = 0.05
# Weight of the newest job in the running mean of job times.
_NEWEST = 0.2


class BoundedExecutor:
    """`threads` workers and a queue of at most `queue_limit` jobs."""

    def __init__(self, *, threads: int, queue_limit: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._threads = threads
        self._limit = queue_limit
        self._name = name
        self._lock = threading.Lock()
        self._jobs = 0
        self._mean_seconds = 0.0

    @property
    def queued(self) -> int:
        """Jobs that wait for a thread."""
        return max(0, self._jobs - self._threads)

    @property
    def active(self) -> int:
        """Jobs that run."""
        return min(self._jobs, self._threads)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` in a thread and return its result.

        A caller that is cancelled while its job waits takes the job out of the queue. Once the job runs the caller is
        kept until it ends: what the job uses (a lease on an engine) must stay open as long.

        Raises:
            OverloadedError: the queue is full; `retry_after_seconds` is when a place should be free.
        """
        future = self._submit(work, *args, **kwargs)
        waiter = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if not future.cancel():
                await _outlive(waiter)
            raise

    def close(self) -> None:
        """Let the running jobs end, drop the waiting ones, and take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        with self._lock:
            if self._jobs >= self._threads + self._limit:
                hint = max(_LEAST_HINT_SECONDS, self._mean_seconds * (self._jobs + 1) / self._threads)
                raise OverloadedError(
                    f"{self._name}: {self._limit} calls wait already; try again in {hint:.2f} s",
                    retry_after_seconds=hint,
                )
            self._jobs += 1
        context = contextvars.copy_context()

        def timed() -> R:
            start = time.monotonic()
            try:
                return context.run(work, *args, **kwargs)
            finally:
                self._learn(time.monotonic() - start)

        try:
            future = self._pool.submit(timed)
        except RuntimeError:
            self._leave()
            raise
        future.add_done_callback(lambda _: self._leave())
        return future

    def _leave(self) -> None:
        with self._lock:
            self._jobs -= 1

    def _learn(self, seconds: float) -> None:
        with self._lock:
            old = self._mean_seconds or seconds
            self._mean_seconds = (1 - _NEWEST) * old + _NEWEST * seconds


async def _outlive(waiter: asyncio.Future[R]) -> None:
    """Wait until the job has ended, however often the waiting task is cancelled."""
    while not waiter.done():
        try:
            await asyncio.wait({waiter})
        except asyncio.CancelledError:
            continue
    if not waiter.cancelled():
        # Mark the error as seen: nobody is left to hear it.
        waiter.exception()
