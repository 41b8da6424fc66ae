"""Objects that are costly to load, loaded once however many use them, and closed when the last user is gone.

It knows users only by their number, and nothing of releases or files. All state lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shammah_chassis.errors import ArtifactError, ShammahError

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Slot(Generic[T]):
    """One object that is loaded, being loaded, or could not be loaded."""

    key: str
    loading: asyncio.Task[T]
    users: int = 0

    @property
    def loaded(self) -> bool:
        """Whether `value` may be read."""
        return self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None

    @property
    def value(self) -> T:
        """The loaded object."""
        return self.loading.result()


class SharedSlots(Generic[T]):
    """Slots by key; `close` frees an object and is awaited in the background."""

    def __init__(self, close: Callable[[T], Awaitable[None]]) -> None:
        self._close = close
        self._slots: dict[str, Slot[T]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, key: str, load: Callable[[], Coroutine[Any, Any, T]]) -> Slot[T]:
        """Use the slot of `key`; `load` runs only when there is none."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(key, asyncio.create_task(load()))
        slot.users += 1
        return slot

    def give_back(self, slot: Slot[T]) -> None:
        """End one use; after the last one the object is closed, as soon as it has loaded."""
        slot.users -= 1
        if slot.users == 0:
            # A key that is taken again from now on is loaded anew.
            del self._slots[slot.key]
            task = asyncio.create_task(self._dispose(slot))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def list_loaded(self) -> list[T]:
        """Return the objects that are loaded, each once."""
        return [slot.value for slot in self._slots.values() if slot.loaded]

    async def wait_closed(self) -> None:
        """Wait until all that was given back has been closed."""
        while self._closing:
            await asyncio.wait(set(self._closing))

    async def _dispose(self, slot: Slot[T]) -> None:
        await asyncio.wait({slot.loading})
        if slot.loaded:
            error = await settle(self._close(slot.value))
            if error is not None:
                logger.error("%s did not close cleanly: %s", slot.key, error.message)


async def settle(work: Awaitable[object]) -> ShammahError | None:
    """Run to the end and return how it failed, or None.

    Loaders run code of libraries that raise what they like. What can't be loaded is a state to report, whatever the
    reason: a foreign error becomes ArtifactError.
    """
    (outcome,) = await asyncio.gather(work, return_exceptions=True)
    if isinstance(outcome, asyncio.CancelledError):
        raise outcome
    if not isinstance(outcome, BaseException):
        return None
    if isinstance(outcome, ShammahError):
        return outcome
    logger.error("unexpected failure", exc_info=outcome)
    return ArtifactError(f"{type(outcome).__name__}: {outcome}")
