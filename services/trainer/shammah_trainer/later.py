"""One piece of work in a thread of its own, whose result is wanted later: what waits for a device beside what computes.

It knows nothing of the work. An error is raised where the result is taken, never lost where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """Begun when it is made. `take` the result as often as wanted; always `close`."""

    def __init__(self, work: Callable[[], T], *, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._future = self._pool.submit(work)

    def take(self) -> T:
        """Wait for the result; raises what the work raised."""
        return self._future.result()

    def settle(self) -> bool:
        """Wait for the end; return whether there is a result."""
        return self._future.exception() is None

    def close(self) -> None:
        """Wait for the end: what is under way must not meet what comes after."""
        self._pool.shutdown(wait=True)
