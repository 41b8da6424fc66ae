"""Following one key of the bucket through reconnections and restarts of the server.

nats-py's watcher is quick but is silently gone when the server restarts, so the value is also read again every
`WATCH_CHECK_SECONDS`. It does not know what the values mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import nats.errors

from shammah_chassis.bus_values import KvEntry
from shammah_chassis.errors import UnavailableError
from shammah_chassis.streams import BUCKET

if TYPE_CHECKING:
    from shammah_chassis.bus import Bus


# How old a watched value may be at most when the server forgot the watch (it does so when it restarts).
WATCH_CHECK_SECONDS = 2.0


async def watch_key(bus: Bus, key: str) -> AsyncIterator[KvEntry]:
    """Yield the value of `key` now and after each change; see `Bus.kv_watch`."""
    seen: int | None = None
    while True:
        connections = bus.connections
        watcher = await _open(bus, key)
        try:
            while connections == bus.connections:
                entry, watched = await _next(bus, key, watcher)
                # What the watcher brings may be older than what was read directly; what was read directly holds.
                if entry is None or entry.revision == seen or (watched and seen is not None and entry.revision < seen):
                    continue
                seen = entry.revision
                yield entry
                if watcher is None or not watched:
                    break  # the watcher missed it: make a new one
        finally:
            if watcher is not None:
                # Before any drain: a busy watcher makes the drain of the connection time out.
                with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                    await watcher.stop()


async def _open(bus: Bus, key: str) -> Any | None:  # noqa: ANN401 - nats-py is untyped
    try:
        bucket = await bus.call(lambda: bus.jetstream.key_value(BUCKET), f"watch {key}", budget=WATCH_CHECK_SECONDS)
        return await bus.call(lambda: bucket.watch(key), f"watch {key}", budget=WATCH_CHECK_SECONDS)
    except (UnavailableError, nats.errors.Error):
        return None


async def _next(bus: Bus, key: str, watcher: Any | None) -> tuple[KvEntry | None, bool]:  # noqa: ANN401
    """Return the next value and whether the watcher brought it, or (None, False) when there was none."""
    if watcher is not None:
        with contextlib.suppress(TimeoutError):
            entry = await watcher.updates(timeout=WATCH_CHECK_SECONDS)
            if entry is None or entry.operation:
                return None, True
            return KvEntry(value=(entry.value or b"").decode(), revision=entry.revision), True
    try:
        found = await bus.kv_get(key)
        if found is None and watcher is None:
            # No value and nothing to watch yet: ask again soon, not at once.
            await asyncio.sleep(0.2)
        return found, False
    except UnavailableError:
        if bus.client.is_closed:
            raise
        await asyncio.sleep(0.2)
        return None, False
