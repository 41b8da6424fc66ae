"""How the settings of a gateway open it: its links to what lies outside, the parts of a query's way, then the tools.

It decides nothing: every part is made once and handed to those that need it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from shammah_chassis.artifacts import ArtifactStore, open_store
from shammah_chassis.bus import Bus
from shammah_chassis.errors import ShammahError
from shammah_chassis.settings import read_secret
from shammah_chassis.spool import Spool

from shammah_gateway.agreement import AgreementPolicy
from shammah_gateway.cascade import Cascade
from shammah_gateway.coins import Coins, load_secret
from shammah_gateway.config import GatewaySettings
from shammah_gateway.consent.consent import Consent, open_consent
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.gateway import Gateway
from shammah_gateway.housekeeping import Housekeeper
from shammah_gateway.jobs import JobBook
from shammah_gateway.learning import Learner
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.opening import open_ledger
from shammah_gateway.monitor import Monitor
from shammah_gateway.pods import Pods
from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.telling import WithdrawalTeller
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.recorder import Recorder
from shammah_gateway.releases import ReleaseController
from shammah_gateway.roles import RoleClients
from shammah_gateway.student import Student
from shammah_gateway.teachers.base import Teacher
from shammah_gateway.teachers.choice import BreakerBoard, list_urls, open_teacher
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.trainer_client import TrainerClient

CONNECT_PAUSE_SECONDS = 1.0
_log = logging.getLogger(__name__)


async def open_gateway(settings: GatewaySettings) -> Gateway:
    """Open all parts; waits for the event bus as long as it takes.

    Raises:
        InvalidInputError: a setting, a secret file, the prices file or the ledger's file is wrong.
        NotFoundError: a recorded file is not there.
    """
    links = await _open_links(settings)
    parts = _make_parts(settings, links)
    feedback = FeedbackDesk(parts.recorder, daily_weight=settings.feedback_daily_weight)
    tools = _make_tools(settings, links, parts)
    return Gateway(
        settings=settings,
        bus=links.bus,
        store=links.store,
        pods=parts.pods,
        releases=parts.releases,
        recorder=parts.recorder,
        monitor=parts.monitor,
        watch=parts.watch,
        learner=parts.learner,
        cascade=parts.cascade,
        teacher=links.teacher,
        ledger=links.ledger,
        board=links.board,
        trainer=tools.trainer,
        jobs=tools.jobs,
        feedback=feedback,
        desk=FrontDesk(parts.cascade, parts.monitor, feedback, links.ledger, links.consent.counts),
        housekeeper=Housekeeper(links.store, parts.releases, parts.monitor, WithdrawalTeller(links.bus, parts.watch)),
        tools=tools,
        consent=links.consent,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Links:
    """What lies outside of the process: files of secrets, consent and money, the teacher, bus and store."""

    token: str | None
    consent: Consent
    ledger: Ledger
    board: BreakerBoard
    teacher: Teacher | None
    coins: Coins
    bus: Bus
    store: ArtifactStore


async def _open_links(settings: GatewaySettings) -> _Links:
    settings.own_dir.mkdir(parents=True, exist_ok=True)
    token = read_secret(settings.internal_token_file)
    consent = await open_consent(settings, urls=list_urls(settings))
    ledger = await asyncio.to_thread(open_ledger, settings)
    board = BreakerBoard(settings.breaker_limits)
    teacher = await open_teacher(settings, ledger, board)
    if teacher is not None:
        teacher.gate = consent.gate
    coins = Coins(load_secret(settings.secret_file), settings.audit_rate, settings.explore_rate)
    # Last: what is wrong with a file is said at once, the bus may be long in coming.
    bus = await _connect(settings)
    store = open_store(settings.store_url, bus)
    return _Links(
        token=token, consent=consent, ledger=ledger, board=board, teacher=teacher, coins=coins, bus=bus, store=store
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The parts on the way of a query, and those that note what became of it."""

    pods: Pods
    roles: RoleClients
    releases: ReleaseController
    recorder: Recorder
    monitor: Monitor
    watch: PromiseWatch
    learner: Learner
    cascade: Cascade


def _make_parts(settings: GatewaySettings, links: _Links) -> _Parts:
    pods = Pods(settings.targets, token=links.token)
    roles = RoleClients(pods)
    releases = ReleaseController(links.bus, links.store, pods, hold_seconds=settings.hold_seconds)
    releases.log = links.consent.log
    recorder = Recorder(links.bus, Spool(settings.own_dir / "spool", settings.spool_max_bytes), links.consent)
    monitor = Monitor()
    watch = PromiseWatch(PromiseBook(settings.own_dir / "promise.json"))
    student = Student(roles, role_timeout_seconds=settings.role_timeout_seconds, watch=watch)
    learner = Learner(
        student=student,
        teacher=links.teacher,
        sink=recorder,
        coins=links.coins,
        monitor=monitor,
        teacher_max_tokens=settings.teacher_max_tokens,
        watch=watch,
        consent=links.consent,
    )
    cascade = Cascade(
        student=student,
        releases=releases,
        teacher=links.teacher,
        learner=learner,
        teacher_max_tokens=settings.teacher_max_tokens,
        at_cap=settings.at_cap,
        watch=watch,
    )
    return _Parts(
        pods=pods,
        roles=roles,
        releases=releases,
        recorder=recorder,
        monitor=monitor,
        watch=watch,
        learner=learner,
        cascade=cascade,
    )


def _make_tools(settings: GatewaySettings, links: _Links, parts: _Parts) -> ToolContext:
    return ToolContext(
        cascade=parts.cascade,
        roles=parts.roles,
        releases=parts.releases,
        trainer=TrainerClient(settings.trainer_target, links.token),
        teacher=links.teacher,
        sink=parts.recorder,
        jobs=JobBook(settings.own_dir / "jobs"),
        monitor=parts.monitor,
        hold_seconds=settings.hold_seconds,
        consent=links.consent,
        agreement=_agreement(settings),
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
