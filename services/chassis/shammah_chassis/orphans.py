"""Removing chunks of the object store that no object has.

A writer that is killed in the middle leaves its chunks for ever; nats-py never looks for them. Knows the object
store's layout (ADR-20: `$O.<bucket>.C.<nuid>`), nothing of what is stored.
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from typing import TYPE_CHECKING

import nats.js.errors

from shammah_chassis.streams import ARTIFACTS

if TYPE_CHECKING:
    from nats.js.object_store import ObjectStore as Bucket

    from shammah_chassis.bus import Bus

# A writer that has sent no chunk for so long is taken for dead.
ABANDONED_SECONDS = 3600.0


async def purge_orphans(bus: Bus, bucket: Bucket, *, older_than_seconds: float = ABANDONED_SECONDS) -> int:
    """Purge old chunks that no live object has; return how many interrupted objects they were of.

    The age protects writers at work: their object exists only after their last chunk.
    """
    js = bus.jetstream
    stream = f"OBJ_{ARTIFACTS}"
    prefix = f"$O.{ARTIFACTS}.C."
    info = await bus.call(lambda: js.stream_info(stream, subjects_filter=f"{prefix}>"), "list chunks")
    try:
        live = {item.nuid for item in await bus.call(lambda: bucket.list(ignore_deletes=True), "list objects")}
    except nats.js.errors.NotFoundError:
        live = set()
    purged = 0
    for subject in info.state.subjects or {}:
        if subject.removeprefix(prefix) in live:
            continue
        with contextlib.suppress(nats.js.errors.NotFoundError):
            if await _age(bus, stream, subject) >= older_than_seconds:
                await bus.call(lambda subject=subject: js.purge_stream(stream, subject=subject), f"purge {subject}")  # type: ignore[misc]
                purged += 1
    return purged


async def _age(bus: Bus, stream: str, subject: str) -> float:
    """Return the seconds since the last chunk of a subject was stored."""
    js = bus.jetstream
    message = await bus.call(lambda: js.get_last_msg(stream, subject, direct=True), f"age of {subject}")
    stamp = (message.headers or {}).get("Nats-Time-Stamp", "")
    # Nanoseconds are more than `fromisoformat` reads; seconds are enough here.
    stored = datetime.fromisoformat(stamp[:19] + "+00:00")
    return time.time() - stored.timestamp()
