"""The gateway in one piece: its parts, how they are opened, and the doors' common steps. It knows no transport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from shammah_chassis.artifacts import ArtifactStore, open_store
from shammah_chassis.bus import Bus
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.settings import read_secret
from shammah_chassis.spool import Spool

from shammah_gateway.agreement import AgreementPolicy
from shammah_gateway.cascade import Cascade
from shammah_gateway.coins import Coins, load_secret
from shammah_gateway.config import GatewaySettings
from shammah_gateway.consent.consent import Consent, open_consent
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.housekeeping import Housekeeper
from shammah_gateway.jobs import JobBook
from shammah_gateway.learning import Learner
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.opening import open_ledger
from shammah_gateway.monitor import Monitor
from shammah_gateway.offers import Sieve, sift_json
from shammah_gateway.pods import Pods
from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.recorder import Recorder
from shammah_gateway.releases import ReleaseController
from shammah_gateway.roles import RoleClients
from shammah_gateway.student import Student
from shammah_gateway.teachers.base import Teacher
from shammah_gateway.teachers.choice import BreakerBoard, list_urls, open_teacher
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import resume_jobs
from shammah_gateway.trainer_client import TrainerClient
from shammah_gateway.values import Answer, Query

MAX_SUBMITTED = 256
CONNECT_PAUSE_SECONDS = 1.0
# Audits that run at the stop may end; a slow teacher is not waited for longer.
IDLE_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """All parts, opened by `open_gateway`."""

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

    async def submit(self, texts: Sequence[str], *, trusted: bool = True) -> tuple[Sieve, bool]:
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


async def open_gateway(settings: GatewaySettings) -> Gateway:
    """Open all parts; waits for the event bus as long as it takes.

    Raises:
        InvalidInputError: a setting, a secret file, the prices file or the ledger's file is wrong.
        NotFoundError: a recorded file is not there.
    """
    own = settings.own_dir
    own.mkdir(parents=True, exist_ok=True)
    token = read_secret(settings.internal_token_file)
    consent = await open_consent(settings, urls=list_urls(settings))
    ledger = await asyncio.to_thread(open_ledger, settings)
    board = BreakerBoard(settings.breaker_limits)
    teacher = await open_teacher(settings, ledger, board)
    if teacher is not None:
        teacher.gate = consent.gate
    coins = Coins(load_secret(settings.secret_file), settings.audit_rate, settings.explore_rate)
    bus = await _connect(settings)
    store = open_store(settings.store_url, bus)
    pods = Pods(settings.targets, token=token)
    releases = ReleaseController(bus, store, pods, hold_seconds=settings.hold_seconds)
    releases.log = consent.log
    recorder = Recorder(bus, Spool(own / "spool", settings.spool_max_bytes), consent)
    monitor = Monitor()
    roles = RoleClients(pods)
    watch = PromiseWatch(PromiseBook(own / "promise.json"))
    student = Student(roles, role_timeout_seconds=settings.role_timeout_seconds, watch=watch)
    limit = settings.teacher_max_tokens
    learner = Learner(
        student=student,
        teacher=teacher,
        sink=recorder,
        coins=coins,
        monitor=monitor,
        teacher_max_tokens=limit,
        watch=watch,
        consent=consent,
    )
    cascade = Cascade(
        student=student,
        releases=releases,
        teacher=teacher,
        learner=learner,
        teacher_max_tokens=limit,
        at_cap=settings.at_cap,
        watch=watch,
    )
    feedback = FeedbackDesk(recorder, daily_weight=settings.feedback_daily_weight)
    trainer = TrainerClient(settings.trainer_target, token)
    jobs = JobBook(own / "jobs")
    tools = ToolContext(
        cascade=cascade,
        roles=roles,
        releases=releases,
        trainer=trainer,
        teacher=teacher,
        sink=recorder,
        jobs=jobs,
        monitor=monitor,
        hold_seconds=settings.hold_seconds,
        consent=consent,
        agreement=_agreement(settings),
    )
    return Gateway(
        settings=settings,
        bus=bus,
        store=store,
        pods=pods,
        releases=releases,
        recorder=recorder,
        monitor=monitor,
        watch=watch,
        learner=learner,
        cascade=cascade,
        teacher=teacher,
        ledger=ledger,
        board=board,
        trainer=trainer,
        jobs=jobs,
        feedback=feedback,
        desk=FrontDesk(cascade, monitor, feedback, ledger, consent.counts),
        housekeeper=Housekeeper(store, releases, monitor),
        tools=tools,
        consent=consent,
    )


def _agreement(settings: GatewaySettings) -> AgreementPolicy:
    return AgreementPolicy(
        share=settings.teach_agreement_share,
        most=settings.teach_agreement_max,
        callers=settings.teach_agreement_callers,
    )


async def _connect(settings: GatewaySettings) -> Bus:
    token = read_secret(settings.nats_token_file)
    while True:
        try:
            bus = await Bus.connect(settings.nats_url, token=token)
        except ShammahError as error:
            _log.warning("waiting for the event bus: %s", error.message)
        else:
            try:
                await bus.ensure(settings.bus_max_bytes)
            except ShammahError as error:
                _log.warning("the event bus is not ready: %s", error.message)
                await bus.close()
            else:
                return bus
        await asyncio.sleep(CONNECT_PAUSE_SECONDS)
