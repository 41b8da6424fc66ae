"""The streams and buckets of the event bus and their limits; made once, by whoever comes first.

Knows configuration only; who writes and reads is `bus` and `consumer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nats.js.errors
from nats.js import api

if TYPE_CHECKING:
    from nats.js import JetStreamContext

EXAMPLES = "EXAMPLES"
EXAMPLE_SUBJECTS = "examples.new.>"
DEAD = "DEAD"
DEAD_SUBJECT = "dead.examples"
BUCKET = "shammah"
ARTIFACTS = "artifacts"
KEYS = ("champion", "wanted", "lease_trainer")

DEFAULT_MAX_BYTES = 4 << 30
DEAD_MAX_BYTES = 64 << 20
KV_MAX_BYTES = 16 << 20
DUPLICATE_WINDOW_SECONDS = 600.0
# nats-server: "stream name already in use with a different configuration".
_OTHER_CONFIGURATION = 10058


async def ensure_streams(js: JetStreamContext, *, max_bytes: int | None, replicas: int) -> None:
    """Make the streams and the bucket that are missing; `max_bytes` None leaves a present limit as it is."""
    await _ensure(js, _examples(max_bytes or DEFAULT_MAX_BYTES, replicas), update=max_bytes is not None)
    await _ensure(js, _dead(replicas), update=False)
    await _ensure(js, _bucket(replicas), update=False)


async def _ensure(js: JetStreamContext, config: api.StreamConfig, *, update: bool) -> None:
    try:
        await js.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _OTHER_CONFIGURATION:
            raise
        if update:
            # What forbids erasing can't be taken back in a log that was made so.
            config.deny_delete = (await js.stream_info(str(config.name))).config.deny_delete
            await js.update_stream(config)


def _examples(max_bytes: int, replicas: int) -> api.StreamConfig:
    """Return the log: no age, and when full it refuses new messages rather than forget old ones."""
    return api.StreamConfig(
        name=EXAMPLES,
        subjects=[EXAMPLE_SUBJECTS],
        storage=api.StorageType.FILE,
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.NEW,
        max_bytes=max_bytes,
        max_age=0,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
        # Nothing is deleted but what somebody asks to be forgotten.
        deny_delete=False,
    )


def _dead(replicas: int) -> api.StreamConfig:
    """Return the dead letters, which are for people: the oldest go when it is full."""
    return api.StreamConfig(
        name=DEAD,
        subjects=["dead.>"],
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_bytes=DEAD_MAX_BYTES,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
    )


def _bucket(replicas: int) -> api.StreamConfig:
    """Return the key-value bucket in the layout of NATS (ADR-8), so that its tools can read it."""
    return api.StreamConfig(
        name=f"KV_{BUCKET}",
        subjects=[f"$KV.{BUCKET}.>"],
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_bytes=KV_MAX_BYTES,
        max_msgs_per_subject=8,
        duplicate_window=120.0,
        allow_rollup_hdrs=True,
        deny_delete=True,
        num_replicas=replicas,
    )
