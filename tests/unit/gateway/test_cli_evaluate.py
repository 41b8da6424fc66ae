"""What an evaluation reports, from plain outcomes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.errors import (
    ForbiddenError,
    InvalidInputError,
    ShammahError,
    TeacherError,
    UnauthenticatedError,
    UnavailableError,
    UnknownReleaseError,
)
from shammah_chassis.workload import WorkloadRow, read_workload
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.evaluate import Asked, ask_all, ask_row, percentile, report
from shammah_gateway.cli.manage import read_arguments
from shammah_gateway.cli.paths import find_connection


def make_rows(folder: Path, count: int) -> tuple[WorkloadRow, ...]:
    path = folder / "rows.jsonl"
    lines = [
        json.dumps(
            {
                "id": str(number),
                "source": "test",
                "license": "Apache-2.0",
                "category": "colour" if number % 2 else "animal",
                "query": f"query {number}",
                "reference": "blue",
                "metadata": {"family": "all", "metric": "label"},
            }
        )
        for number in range(count)
    ]
    path.write_text("\n".join(lines), "utf-8")
    return tuple(read_workload(path).rows)


def outcome(row: WorkloadRow, *, local: bool, whole: bool | None, student: bool | None, seconds: float = 0.1) -> Asked:
    return Asked(row, local, whole, student, "quality" if local else "router", "R", seconds)


def test_shares_and_accuracies_have_their_own_denominators(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 4)
    asked = [
        outcome(rows[0], local=True, whole=True, student=True),
        outcome(rows[1], local=True, whole=False, student=False),
        outcome(rows[2], local=False, whole=True, student=False),
        outcome(rows[3], local=False, whole=None, student=None),
    ]
    overall = report(asked, ["f"])["overall"]
    assert isinstance(overall, dict)
    assert overall["local_share"] == 0.5
    assert overall["local_accuracy"] == 0.5
    assert overall["student_accuracy"] == pytest.approx(1 / 3)
    assert overall["whole_accuracy"] == pytest.approx(2 / 3)
    assert overall["ungraded"] == 1


def test_groups_follow_category_or_family(tmp_path: Path) -> None:
    asked = [outcome(row, local=False, whole=True, student=True) for row in make_rows(tmp_path, 4)]
    by_category, by_family = report(asked, ["f"])["category"], report(asked, ["f"], by="family")["family"]
    assert isinstance(by_category, dict) and isinstance(by_family, dict)
    assert set(by_category) == {"animal", "colour"}
    assert set(by_family) == {"all"}


def test_only_times_differ_between_two_equal_runs(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 4)
    first = report([outcome(row, local=True, whole=True, student=True, seconds=0.1) for row in rows], ["f"])
    second = report([outcome(row, local=True, whole=True, student=True, seconds=0.7) for row in rows], ["f"])
    assert first.pop("times") != second.pop("times")
    assert json.dumps(first) == json.dumps(second)


class NoTeacher:
    """A gateway whose teacher has no answer: only the student alone answers."""

    stub = SimpleNamespace(Ask="Ask")

    async def call(
        self, method: str, request: gateway_pb2.AskRequest, *, timeout: float | None = None
    ) -> gateway_pb2.AskResponse:
        if not (request.local_only and request.allow_degraded and request.want_attempt and request.no_learn):
            raise TeacherError("no recorded answer")
        attempt = gateway_pb2.Attempt(text="blue", finish="stop")
        return gateway_pb2.AskResponse(text="blue", attempt=attempt, versions=types_pb2.Versions(release="R"))


async def test_a_row_that_the_teacher_does_not_answer_still_has_the_students_attempt(tmp_path: Path) -> None:
    (row,) = make_rows(tmp_path, 1)
    asked = await ask_row(cast("GatewayClient", NoTeacher()), row, release="", max_tokens=0)
    assert (asked.local, asked.whole_good, asked.student_good) == (False, False, True)
    assert (asked.reason, asked.release, asked.error) == ("teacher_unavailable", "R", "no recorded answer")


class Refusing:
    """A gateway that refuses every call for the same reason, and counts them."""

    stub = SimpleNamespace(Ask="Ask")

    def __init__(self, error: ShammahError) -> None:
        self.error = error
        self.calls = 0

    async def call(self, *_: object, **__: object) -> gateway_pb2.AskResponse:
        self.calls += 1
        await asyncio.sleep(0)  # as a call over the wire, it lets others run
        raise self.error


@pytest.mark.parametrize("kind", [UnknownReleaseError, UnauthenticatedError, ForbiddenError, InvalidInputError])
async def test_what_is_wrong_with_the_call_ends_the_run(tmp_path: Path, kind: type[ShammahError]) -> None:
    refusing = Refusing(kind("no release 'nope'"))
    with pytest.raises(kind, match="nope"):
        await ask_all(cast("GatewayClient", refusing), make_rows(tmp_path, 40), release="nope", concurrency=1)
    assert refusing.calls < 40


async def test_a_row_that_can_not_be_asked_is_named(tmp_path: Path) -> None:
    refusing = Refusing(InvalidInputError("the query is empty"))
    with pytest.raises(InvalidInputError, match=r"^row 0: the query is empty$"):
        await ask_all(cast("GatewayClient", refusing), make_rows(tmp_path, 1))


async def test_what_is_wrong_with_one_row_does_not_end_the_run(tmp_path: Path) -> None:
    refusing = Refusing(UnavailableError("away"))
    asked = await ask_all(cast("GatewayClient", refusing), make_rows(tmp_path, 3))
    assert [item.error for item in asked] == ["away"] * 3


def test_a_percentile_is_the_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([], 0.5) == 0.0


def test_tool_arguments_must_be_an_object(tmp_path: Path) -> None:
    path = tmp_path / "arguments.json"
    path.write_text('{"test_count": 60}', "utf-8")
    assert read_arguments(f"@{path}") == {"test_count": 60}
    assert read_arguments("") == {}
    for text in ("[1]", "{broken", "@/nowhere"):
        with pytest.raises(InvalidInputError):
            read_arguments(text)


def test_a_command_without_a_running_system_says_how_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHAMMAH_GATEWAY", raising=False)
    with pytest.raises(UnavailableError, match="up"):
        find_connection(tmp_path)
