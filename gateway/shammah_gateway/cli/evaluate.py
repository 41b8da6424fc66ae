"""`eval FILE...`: a workload through the cascade, with learning off, graded.

Each row is asked once. The cascade answers as it would answer a user; the student is also run where the query is
forwarded, so that its accuracy on all rows is known. Nothing is learned, audited or explored. A row that the teacher
does not answer counts as failed, and the student is asked for its attempt by itself. What is wrong with the call (an
unknown release, a token that may not ask) ends the run, as every other row would fail by it too. Rows that no grader
can judge offline are counted and left out of every accuracy. Latencies are those of this run, with `concurrency`
queries in flight; they are the only fields that differ between two runs on the same release and files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.grading import grade
from shammah_chassis.workload import WorkloadRow

from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.console import out, percent

PATIENCE_SECONDS = 600.0
# Errors of a query that was forwarded: the student's own attempt can still be had.
_UNANSWERED = frozenset(
    (
        *("teacher_unavailable", "teacher_auth", "teacher_timeout", "teacher_refused", "teacher_truncated"),
        *("budget_exhausted", "storage_full", "unavailable"),
    )
)

# Errors of the call, not of the row. (An invalid input is of either, so it names the row.)
_ENDING = frozenset(("unknown_release", "unauthenticated", "forbidden"))


@dataclass(frozen=True, slots=True)
class Asked:
    """Outcome of one row: None where nothing could be graded."""

    row: WorkloadRow
    local: bool
    whole_good: bool | None
    student_good: bool | None
    reason: str
    release: str
    seconds: float
    error: str = ""


async def ask_row(client: GatewayClient, row: WorkloadRow, *, release: str, max_tokens: int) -> Asked:
    """Ask one row and grade what came back.

    A named error of the gateway becomes a row without an answer: not local, not good. Where only the teacher failed,
    the student's attempt is asked for once more without it.

    Raises:
        UnknownReleaseError, UnauthenticatedError, ForbiddenError, InvalidInputError: no row can be asked like this.
    """
    request = gateway_pb2.AskRequest(
        messages=[types_pb2.Message(role=m.role, content=m.content) for m in row.example.query],
        no_learn=True,
        want_attempt=True,
        role_timeout_seconds=PATIENCE_SECONDS,
        release=release,
        max_tokens=max_tokens,
    )
    begun = time.perf_counter()
    try:
        answer = await client.call(client.stub.Ask, request, timeout=2 * PATIENCE_SECONDS)
    except ShammahError as error:
        if error.code == InvalidInputError.code:
            raise InvalidInputError(f"row {row.id}: {error.message}") from error
        if error.code in _ENDING:
            raise
        seconds = time.perf_counter() - begun
        student, served_by = None, ""
        if error.code in _UNANSWERED:
            student, served_by = await _ask_student(client, row, request)
        return Asked(row, False, False, student, error.code, served_by, seconds, error=error.message)
    seconds = time.perf_counter() - begun
    student = await _grade_attempt(answer, row)
    whole = (await asyncio.to_thread(grade, answer.text, row.example)).good
    return Asked(
        row=row,
        local=answer.route == gateway_pb2.ROUTE_LOCAL,
        whole_good=whole,
        student_good=student,
        reason=answer.reason,
        release=answer.versions.release,
        seconds=seconds,
    )


async def _ask_student(
    client: GatewayClient, row: WorkloadRow, request: gateway_pb2.AskRequest
) -> tuple[bool | None, str]:
    """Have the student alone answer a row; returns whether it is good and by which release, (None, "") if it can't."""
    alone = gateway_pb2.AskRequest()
    alone.CopyFrom(request)
    alone.local_only = alone.allow_degraded = True
    try:
        answer = await client.call(client.stub.Ask, alone, timeout=2 * PATIENCE_SECONDS)
    except ShammahError:
        return None, ""
    return await _grade_attempt(answer, row), answer.versions.release


async def _grade_attempt(answer: gateway_pb2.AskResponse, row: WorkloadRow) -> bool | None:
    """Grade the student's attempt; a cut one is not good, None is for no attempt or one that can't be graded."""
    if not answer.HasField("attempt"):
        return None
    verdict = await asyncio.to_thread(grade, answer.attempt.text, row.example)
    return None if verdict.good is None else verdict.good and answer.attempt.finish == "stop"


async def ask_all(
    client: GatewayClient,
    rows: Sequence[WorkloadRow],
    *,
    release: str = "",
    max_tokens: int = 0,
    concurrency: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Asked]:
    """Ask all rows, at most `concurrency` in flight; results are in the order of the rows.

    Raises as `ask_row`; the other rows are given up then.
    """
    gate = asyncio.Semaphore(concurrency)
    done = 0

    async def one(row: WorkloadRow) -> Asked:
        nonlocal done
        async with gate:
            asked = await ask_row(client, row, release=release, max_tokens=max_tokens)
        done += 1
        progress(done)
        return asked

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(row)) for row in rows]
    except* ShammahError as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def summarise(asked: Sequence[Asked]) -> dict[str, object]:
    """Return n, shares and accuracies of a group of rows (None where there is nothing to divide by)."""
    local = [item for item in asked if item.local]
    reasons: dict[str, int] = {}
    for item in asked:
        reasons[item.reason] = reasons.get(item.reason, 0) + 1
    return {
        "n": len(asked),
        "ungraded": sum(item.whole_good is None for item in asked),
        "failed": sum(bool(item.error) for item in asked),
        "local": len(local),
        "local_share": _share([item.local for item in asked]),
        "local_accuracy": _share([item.whole_good for item in local if item.whole_good is not None]),
        "student_accuracy": _share([item.student_good for item in asked if item.student_good is not None]),
        "whole_accuracy": _share([item.whole_good for item in asked if item.whole_good is not None]),
        "reasons": dict(sorted(reasons.items())),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; 0 of nothing is 0."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def report(asked: Sequence[Asked], files: Sequence[str], *, by: str = "category") -> dict[str, object]:
    """Return the whole result of an evaluation; everything that depends on time is under `times`."""
    groups: dict[str, list[Asked]] = {}
    for item in asked:
        name = item.row.family if by == "family" else item.row.example.category
        groups.setdefault(name, []).append(item)
    seconds = [item.seconds for item in asked]
    return {
        "files": list(files),
        "releases": sorted({item.release for item in asked if item.release}),
        by: {name: summarise(groups[name]) for name in sorted(groups)},
        "overall": summarise(asked),
        "times": {
            "p50_ms": round(1000 * percentile(seconds, 0.5), 1),
            "p99_ms": round(1000 * percentile(seconds, 0.99), 1),
        },
    }


def print_report(result: dict[str, object], *, by: str) -> None:
    """Print the result of `report` as a table."""
    groups = result[by]
    assert isinstance(groups, dict)
    table = Table(by, "n", "local", "acc. of local", "acc. of student", "acc. of whole", "failed", "ungraded")
    for name, row in [*groups.items(), ("overall", result["overall"])]:
        assert isinstance(row, dict)
        shown = (
            "-" if row[key] is None else percent(row[key])
            for key in ("local_share", "local_accuracy", "student_accuracy", "whole_accuracy")
        )
        table.add_row(name, str(row["n"]), *shown, str(row["failed"]), str(row["ungraded"]))
    out.print(table)
    times = result["times"]
    assert isinstance(times, dict)
    out.print(f"releases {result['releases']}; latency p50 {times['p50_ms']} ms, p99 {times['p99_ms']} ms")
