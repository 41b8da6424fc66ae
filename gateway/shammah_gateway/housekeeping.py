"""Checkpoints every hundred queries, clearing the store, telling and hearing what is withdrawn. It serves nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from shammah_chassis.artifacts import ArtifactStore
from shammah_chassis.checkpoints import Checkpoint
from shammah_chassis.errors import ShammahError
from shammah_chassis.tasks import stop_tasks
from shammah_chassis.ulid import new_ulid

from shammah_gateway.monitor import Monitor
from shammah_gateway.promise.telling import WithdrawalTeller
from shammah_gateway.releases import ReleaseController
from shammah_gateway.retention import collect_garbage

CHECKPOINT_QUERIES = 100
LOOK_SECONDS = 5.0
CLEAR_SECONDS = 300.0
"""Rounds whose release was not taken leave versions too: a store is cleared also while the champion stays."""
_log = logging.getLogger(__name__)


class Housekeeper:
    """Runs beside the traffic until `close`."""

    def __init__(
        self, store: ArtifactStore, releases: ReleaseController, monitor: Monitor, teller: WithdrawalTeller
    ) -> None:
        self._store = store
        self._releases = releases
        self._monitor = monitor
        self._teller = teller
        self._at = 0
        self._cleared = ""
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        await stop_tasks([self._task])

    async def take_checkpoint(self, reason: str) -> Checkpoint | None:
        """Publish a checkpoint of now; None while no release serves."""
        release = self._releases.champion()
        if release is None:
            return None
        now = self._monitor
        audited, bad = now.audited
        metrics = {
            "local": now.local,
            "forwarded": now.forwarded,
            "failed": now.failed,
            "audited": audited,
            "audited_bad": bad,
            "reasons": dict(now.reasons),
        }
        checkpoint = Checkpoint(
            id=new_ulid(),
            release=release.id,
            position=release.position,
            queries=now.queries,
            metrics=metrics,
            created_at=time.time(),
            reason=reason,
        )
        await self._store.publish_checkpoint(checkpoint)
        return checkpoint

    async def clear(self) -> None:
        """Delete what need not stay in the store."""
        if self._releases.desired is not None:
            await collect_garbage(self._store, self._releases.desired, self._releases.wanted)

    async def _run(self) -> None:
        while True:
            for work in (self._tell, self._hear, self._keep):
                await _guard(work)
            await self._releases.changed.wait(LOOK_SECONDS)

    async def _tell(self) -> None:
        release = self._releases.champion()
        if release is not None:
            await self._teller.tell(release)

    async def _hear(self) -> None:
        """Hear of each release that may be served: also those which a query can name, or a rollback go to at once."""
        champion = self._releases.champion()
        if champion is None:
            return
        for name in dict.fromkeys((champion.id, *self._releases.wanted.releases)):
            await _guard(partial(self._hear_of, name))

    async def _hear_of(self, name: str) -> None:
        await self._teller.hear(await self._releases.find(name))

    async def _keep(self) -> None:
        if self._monitor.queries - self._at >= CHECKPOINT_QUERIES:
            self._at = self._monitor.queries
            await self.take_checkpoint(f"after {self._at} queries")
        release = self._releases.champion()
        if release is not None and (release.id != self._cleared or time.monotonic() >= self._due):
            await self.clear()
            self._cleared, self._due = release.id, time.monotonic() + CLEAR_SECONDS


async def _guard(work: Callable[[], Awaitable[None]]) -> None:
    """Do one piece of work; whatever ends it this time, later ones must be looked after."""
    try:
        await work()
    except ShammahError as error:
        _log.warning("housekeeping: %s", error.message)
    except Exception:
        _log.exception("housekeeping failed")
