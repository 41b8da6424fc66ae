"""Follows the desired state: KV `wanted` says which releases a pod holds, and this makes the pod hold them.

The last wish is also kept in a file, so that a pod that starts while the bus is away serves what it served before. It
does not know how a release is loaded, and never speaks to the one who wishes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from shammah_chassis.errors import ArtifactError, ShammahError
from shammah_chassis.held import HeldVersions
from shammah_chassis.releases import Wanted, parse_wanted

logger = logging.getLogger(__name__)
WANTED_KEY = "wanted"
_PAUSE_SECONDS = 1.0


class KeyValue(Protocol):
    """One value of a watched key."""

    @property
    def value(self) -> str:
        """The text."""


class KeySource(Protocol):
    """What is needed of the bus."""

    def kv_watch(self, key: str, /) -> AsyncIterator[Any]:
        """Yield a `KeyValue` now, if there is one, and after each change."""


def watch_wanted(bus: KeySource, held: HeldVersions[Any], *, remember: Path | None = None) -> asyncio.Task[None]:
    """Start the task that follows KV `wanted` until it is cancelled or the pod leaves.

    It outlives every failure: a wish that can't be read leaves what is held as it is. A new wish does not wait until
    the one before is fulfilled. Each wish is written to `remember`.
    """
    return asyncio.create_task(_watch(bus, held, remember), name="watch-wanted")


def recall_wanted(path: Path) -> Wanted | None:
    """Return the last wish that was written to `path`; None when there is none that can be read."""
    try:
        return parse_wanted(path.read_text("utf-8"))
    except OSError:
        return None
    except ArtifactError as error:
        logger.warning("%s is not used: %s", path, error.message)
        return None


async def _watch(bus: KeySource, held: HeldVersions[Any], remember: Path | None) -> None:
    work: set[asyncio.Task[None]] = set()
    try:
        # Not only until it is cancelled: in Python 3.11 `wait_for` may swallow a cancellation (python/cpython#86296).
        while not held.closed:
            try:
                async for entry in bus.kv_watch(WANTED_KEY):
                    _follow(entry, held, remember, work)
                logger.warning("the watch of KV %s ended; watching again", WANTED_KEY)
            except ShammahError as error:
                logger.warning("KV %s can't be watched, what is held stays: %s", WANTED_KEY, error.message)
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        for task in work:
            task.cancel()


def _follow(entry: KeyValue, held: HeldVersions[Any], remember: Path | None, work: set[asyncio.Task[None]]) -> None:
    try:
        wanted = parse_wanted(entry.value)
    except ArtifactError as error:
        logger.error("a wish is not followed: %s", error.message)
        return
    if remember is not None:
        _write(remember, wanted)
    task = asyncio.create_task(held.reconcile(wanted))
    work.add(task)
    task.add_done_callback(work.discard)


def _write(path: Path, wanted: Wanted) -> None:
    """Keep the wish; a full disk must not stop the pod from following it."""
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(wanted.to_json(), "utf-8")
        aside.replace(path)
    except OSError as error:
        logger.warning("the wish can't be kept in %s: %s", path, error)
