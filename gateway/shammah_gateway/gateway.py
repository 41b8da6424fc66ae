"""The gateway in one piece: its parts, their start and end, and the doors' common steps. It knows no transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from shammah_chassis.artifacts import ArtifactStore
from shammah_chassis.bus import Bus
from shammah_chassis.errors import InvalidInputError

from shammah_gateway.cascade import Cascade
from shammah_gateway.config import GatewaySettings
from shammah_gateway.consent.consent import Consent
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.housekeeping import Housekeeper
from shammah_gateway.jobs import JobBook
from shammah_gateway.learning import Learner
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.monitor import Monitor
from shammah_gateway.offers import Sieve, sift_json
from shammah_gateway.pods import Pods
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.recorder import Recorder
from shammah_gateway.releases import ReleaseController
from shammah_gateway.teachers.base import Teacher
from shammah_gateway.teachers.choice import BreakerBoard
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import resume_jobs, revoke_jobs
from shammah_gateway.trainer_client import TrainerClient
from shammah_gateway.values import Answer, Query

MAX_SUBMITTED = 256
# Audits that run at the stop may end; a slow teacher is not waited for longer.
IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """All parts, opened by `opening.open_gateway`."""

    settings: GatewaySettings
    bus: Bus
    store: ArtifactStore
    pods: Pods
    releases: ReleaseController
    recorder: Recorder
    monitor: Monitor
    watch: PromiseWatch
    learner: Learner
    cascade: Cascade
    teacher: Teacher | None
    ledger: Ledger
    board: BreakerBoard
    trainer: TrainerClient
    jobs: JobBook
    feedback: FeedbackDesk
    desk: FrontDesk
    housekeeper: Housekeeper
    tools: ToolContext
    consent: Consent

    def start(self) -> None:
        """Begin to follow pods and releases, to drain the spool and to keep house; interrupted jobs go on."""
        self.consent.start()
        self.pods.start()
        self.releases.start()
        self.recorder.start()
        self.housekeeper.start()
        resume_jobs(self.tools)
        self.consent.on_grants = lambda: revoke_jobs(self.tools)

    async def close(self) -> None:
        """Stop, in order: no new work, then what learns, then the links."""
        await self.jobs.close()
        await self.housekeeper.close()
        await self.learner.wait_idle(IDLE_SECONDS)
        if self.teacher is not None:
            await self.teacher.close()
        await self.recorder.close()
        await self.releases.close()
        await self.pods.close()
        await self.trainer.close()
        await self.ledger.close()
        await self.consent.close()
        await self.bus.close()

    async def ask(self, query: Query) -> Answer:
        """Answer a query for a door. Raises as `FrontDesk.ask`."""
        return await self.desk.ask(query)

    async def submit(self, texts: Sequence[str], *, trusted: bool) -> tuple[Sieve, bool]:
        """Queue examples that are given as JSON; returns what was rejected why, and whether they were spooled.

        `trusted`: see `sift_json`.

        Raises:
            InvalidInputError: more than 256. StorageFullError: neither log nor spool has room.
        """
        if not 1 <= len(texts) <= MAX_SUBMITTED:
            raise InvalidInputError(f"{len(texts)} examples; allowed: 1 to {MAX_SUBMITTED}")
        sieve = await asyncio.to_thread(sift_json, texts, trusted=trusted)
        spooled = False
        if sieve.passed:
            spooled = (await self.recorder.record("submit", sieve.passed)).spooled
        return sieve, spooled

    def release_state(self, release: str, verdict: str) -> str:
        """Return what a release is now: champion, candidate, previous, held, undecided or ""."""
        champion = self.releases.desired
        if champion is not None and release == champion.release:
            return "champion"
        if release == self.releases.wanted.candidate:
            return "candidate"
        if champion is not None and release in champion.previous:
            return "previous"
        return verdict if verdict in ("held", "undecided") else ""
