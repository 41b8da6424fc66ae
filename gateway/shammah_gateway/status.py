"""The state of the whole, for people: parts, promise, counters, warnings. It changes nothing."""

from __future__ import annotations

import asyncio

from shammah.v1 import gateway_pb2
from shammah_chassis.errors import BudgetError, ShammahError
from shammah_chassis.manifest import ROLES
from shammah_chassis.releases import Release

from shammah_gateway.gateway import Gateway
from shammah_gateway.money.wire import list_money_warnings, write_money
from shammah_gateway.teachers.fallback import FallbackTeacher
from shammah_gateway.wire import write_watched

TRAINER_SECONDS = 2.0


async def read_status(gateway: Gateway) -> gateway_pb2.GetStatusResponse:
    """Return the status; a trainer that does not answer within 2 s is shown as away."""
    trainer, queue_size = await _ask_trainer(gateway)
    now = gateway.monitor
    champion = gateway.releases.champion()
    desired = gateway.releases.desired
    money = gateway.ledger.summary()
    return gateway_pb2.GetStatusResponse(
        champion=champion.id if champion else (desired.release if desired else ""),
        candidate=gateway.releases.wanted.candidate,
        parts=[
            *_pods(gateway),
            trainer,
            _bus(gateway),
            _teacher(gateway),
            *_list_teachers(gateway),
            *_consent(gateway),
        ],
        categories=_categories(gateway, champion) if champion else [],
        queries=now.queries,
        local=now.local,
        forwarded=now.forwarded,
        failed=now.failed,
        spooled=gateway.recorder.spooled,
        teacher_calls=gateway.ledger.calls,
        promise=describe_promise(gateway),
        queue_size=queue_size,
        warnings=[
            *_warnings(gateway),
            *list_money_warnings(money),
        ],
        money=write_money(money),
    )


def _categories(gateway: Gateway, champion: Release) -> list[gateway_pb2.CategoryCertificate]:
    rate = gateway.settings.audit_rate if gateway.teacher is not None else 0.0
    return [
        write_watched(name, policy, gateway.watch.describe(champion, name, audit_rate=rate))
        for name, policy in sorted(champion.categories.items())
    ]


def describe_promise(gateway: Gateway) -> str:
    """Say whether anybody watches the promise, and what was seen."""
    if gateway.settings.audit_rate <= 0:
        return "promise not monitored: the audit rate is 0"
    if gateway.teacher is None:
        return "promise not monitored: there is no teacher to audit with"
    if not gateway.consent.may_audit():
        return "promise not monitored: no token has the scope audit; shammah tokens grant NAME audit"
    try:
        gateway.teacher.check("audit")
    except BudgetError as error:
        return f"promise not monitored: {error.message}"
    graded, bad = gateway.monitor.audited
    return f"monitored: {graded} audits graded, {bad} bad"


def _pods(gateway: Gateway) -> list[gateway_pb2.PartStatus]:
    champion = gateway.releases.desired
    parts: list[gateway_pb2.PartStatus] = []
    for role in ROLES:
        pods = gateway.pods.of_role(role)
        parts.extend(
            gateway_pb2.PartStatus(
                name=role,
                ready=champion is not None and pod.connected and pod.holds(champion.release),
                detail=f"{pod.target}: {pod.detail}",
            )
            for pod in pods
        )
        if not pods:
            parts.append(gateway_pb2.PartStatus(name=role, ready=False, detail="no target is set"))
    return parts


async def _ask_trainer(gateway: Gateway) -> tuple[gateway_pb2.PartStatus, int]:
    try:
        async with asyncio.timeout(TRAINER_SECONDS):
            status = await gateway.trainer.status()
    except (ShammahError, TimeoutError) as error:
        detail = f"{gateway.trainer.target or 'no target'}: {error or 'no answer'}"
        return gateway_pb2.PartStatus(name="trainer", ready=False, detail=detail), 0
    detail = f"{gateway.trainer.target}: {status.device}, {status.queue_size} of {status.batch_size} examples wait"
    if status.parked:
        detail += f", {status.parked} parked (shammah unpark): {status.parked_reason}"
    return gateway_pb2.PartStatus(name="trainer", ready=True, detail=detail), status.queue_size


def _bus(gateway: Gateway) -> gateway_pb2.PartStatus:
    here = gateway.bus.connected
    return gateway_pb2.PartStatus(name="nats", ready=here, detail="connected" if here else "away: examples are spooled")


def _teacher(gateway: Gateway) -> gateway_pb2.PartStatus:
    teacher = gateway.teacher
    if teacher is None:
        return gateway_pb2.PartStatus(name="teacher", ready=False, detail="none is set up")
    left = teacher.ledger.left("answer")
    error: ShammahError | None = teacher.last_error
    budget = "no limit of calls" if left is None else f"{left} calls left"
    try:
        teacher.check("answer")
    except BudgetError as refusal:
        error = error or refusal
    detail = f"{teacher.name}: {budget}" + (f"; last error: {error.message}" if error else "")
    return gateway_pb2.PartStatus(name="teacher", ready=error is None, detail=detail)


def _list_teachers(gateway: Gateway) -> list[gateway_pb2.PartStatus]:
    """Return each teacher, where there are several or one is left alone by its breaker."""
    port = gateway.teacher.port if gateway.teacher else None
    states = port.states() if isinstance(port, FallbackTeacher) else ()
    if len(states) < 2 and all(state.state == "closed" for state in states):
        return []
    return [
        gateway_pb2.PartStatus(name=f"teacher {state.name}", ready=state.state != "open", detail=state.detail)
        for state in states
    ]


def _consent(gateway: Gateway) -> list[gateway_pb2.PartStatus]:
    """Return the state of the audit log, and of masking where it is on."""
    log, masker = gateway.consent.log, gateway.consent.masker
    detail = log.warning or f"{log.head.number} lines, head {log.head.hash[:16]}"
    parts = [gateway_pb2.PartStatus(name="audit log", ready=not log.warning, detail=detail)]
    if masker is not None:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(masker.counts.items())) or "nothing yet"
        parts.append(gateway_pb2.PartStatus(name="masking", ready=True, detail=f"masked: {counts}"))
    return parts


def _warnings(gateway: Gateway) -> list[str]:
    now = gateway.monitor
    texts = [gateway.releases.warning, gateway.recorder.warning]
    texts += [gateway.consent.log.warning, gateway.consent.tokens.warning]
    champion = gateway.releases.champion()
    if champion is not None:
        texts += gateway.watch.alarms(champion)
    else:
        texts.append("no release serves yet: every query is forwarded")
    if gateway.recorder.spooled:
        texts.append(f"{gateway.recorder.spooled} envelopes wait in the spool")
    if now.lost_examples:
        texts.append(f"{now.lost_examples} examples were lost: neither log nor spool had room")
    if now.dropped:
        texts.append(f"{now.dropped} audits or explorations were left out: too many ran")
    return [text for text in texts if text]
