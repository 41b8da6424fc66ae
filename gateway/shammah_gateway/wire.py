"""Between the proto of the gateway and plain values. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message as Proto
from pydantic import BaseModel
from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.examples import Message
from shammah_chassis.releases import CategoryPolicy, Release
from shammah_chassis.scopes import Caller

from shammah_gateway.promise.watch import CategoryWatch
from shammah_gateway.values import Answer, Query, Route

Reply = TypeVar("Reply", bound=Proto)
REQUEST_ID_KEY = "x-shammah-request-id"
_ROUTES: dict[Route, gateway_pb2.Route.ValueType] = {
    "local": gateway_pb2.ROUTE_LOCAL,
    "teacher": gateway_pb2.ROUTE_TEACHER,
    "degraded": gateway_pb2.ROUTE_DEGRADED,
}


def read_ask(request: gateway_pb2.AskRequest, caller: Caller) -> Query:
    """Return the query of a request; it is not checked yet."""
    return Query(
        messages=tuple(Message(turn.role, turn.content) for turn in request.messages),
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        release=request.release,
        no_learn=request.no_learn,
        local_only=request.local_only,
        allow_degraded=request.allow_degraded,
        want_attempt=request.want_attempt,
        role_timeout_seconds=request.role_timeout_seconds,
        grader=request.grader,
        category=request.category,
        user=caller.name,
        may_audit="audit" in caller.scopes,
        alpha=request.alpha,
        conversation=request.conversation,
    )


def write_answer(answer: Answer) -> gateway_pb2.AskResponse:
    """Return the response of an answer."""
    versions = answer.versions
    attempt = answer.attempt
    return gateway_pb2.AskResponse(
        query_id=answer.query_id,
        text=answer.text,
        route=_ROUTES[answer.route],
        reason=answer.reason,
        category=answer.category,
        confidence=answer.confidence,
        versions=types_pb2.Versions(
            release=versions.release,
            router=versions.router,
            generator=versions.generator,
            validator=versions.validator,
        ),
        attempt=gateway_pb2.Attempt(text=attempt.text, quality=attempt.quality, finish=attempt.finish)
        if attempt
        else None,
        latency_seconds=answer.latency_seconds,
        teacher_model=answer.teacher_model,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        stop_reason=answer.stop_reason,
    )


def read_arguments(request: Proto) -> dict[str, Any]:
    """Return the arguments of a tool call: the fields that are set, by their proto names.

    On the wire an empty text is as one left out. A query that the tool must have is given as empty, which is what is
    wrong with it.
    """
    found = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return {"query": "", **found} if isinstance(request, gateway_pb2.QueryLocalModelRequest) else found


def read_request_id(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the client's key for "this call again" (metadata `x-shammah-request-id`), or ""; it is not checked yet."""
    for key, value in metadata or ():
        if key == REQUEST_ID_KEY:
            return value.decode("latin-1") if isinstance(value, bytes) else value
    return ""


def write_result(result: BaseModel, reply: Reply) -> Reply:
    """Fill a reply from a tool's result, whose fields have the names of the proto."""
    values = result.model_dump(exclude_none=True)
    if "job" in values:
        values["job"]["state"] = f"JOB_STATE_{values['job']['state'].upper()}"
    if "hallucination_risk" in values:
        values["hallucination_risk"] = f"RISK_LEVEL_{values['hallucination_risk'].upper()}"
    return json_format.ParseDict(values, reply)


def write_certificate(name: str, policy: CategoryPolicy) -> gateway_pb2.CategoryCertificate:
    """Return what a release may do in a category."""
    return gateway_pb2.CategoryCertificate(
        category=name,
        certified=policy.threshold is not None,
        threshold=policy.threshold or 0.0,
        exam_rows=policy.rows,
        accepted=policy.accepted,
        errors=policy.errors,
        rows_missing=policy.rows_missing,
        accuracy=policy.accuracy,
        reason=policy.reason,
    )


def write_watched(name: str, policy: CategoryPolicy, watched: CategoryWatch) -> gateway_pb2.CategoryCertificate:
    """Return what a release may do in a category, and what is known of it since it serves."""
    row = write_certificate(name, policy)
    row.state = watched.state
    row.audits, row.audits_bad = watched.audits, watched.audits_bad
    row.audits_to_notice, row.seconds_to_notice = watched.audits_to_notice, watched.seconds_to_notice
    row.evidence_seconds, row.score_drift = watched.evidence_seconds, watched.score_drift
    return row


def write_release(release: Release, *, state: str, pinned: bool) -> gateway_pb2.ReleaseInfo:
    """Return what is known of a release."""
    return gateway_pb2.ReleaseInfo(
        id=release.id,
        parent=release.parent,
        created_at=release.created_at,
        state=state,
        pinned=pinned,
        verdict=release.verdict,
        reasons=release.reasons,
        versions=types_pb2.Versions(
            release=release.id,
            router=release.router,
            generator=release.generator,
            validator=release.validator,
        ),
        categories=[write_certificate(name, policy) for name, policy in sorted(release.categories.items())],
        precision=release.precision,
        alpha=release.alpha,
    )
