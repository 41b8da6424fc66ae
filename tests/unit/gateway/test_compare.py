"""Tool `compare_responses`: who says whether two responses agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from shammah_chassis.errors import BudgetError, ShammahError, TeacherError
from shammah_chassis.scopes import Caller
from shammah_gateway.jobs import JobBook
from shammah_gateway.money.usage import Usage
from shammah_gateway.teachers.base import Judgement
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import call_tool
from shammah_gateway.tools.schemas import CompareResult
from support.gateway import Bench, PlainTeacher

ANN = Caller("ann", frozenset({"compare"}))
LONG = "The capital of France has been the city of Paris for a long time."


class JudgingTeacher(PlainTeacher):
    """Says one thing, and judges with one verdict, or raises."""

    agrees: bool = False
    refuses: ShammahError | None = None
    judged: int = 0

    async def judge(self, query: str, reference: str, response: str, *, seconds: float | None = None) -> Judgement:
        self.judged += 1
        if self.refuses is not None:
            raise self.refuses
        return Judgement(self.agrees, "another city", "claude-sonnet-5-5", Usage(output_tokens=10))


async def compare(folder: Path, port: PlainTeacher, **arguments: Any) -> tuple[CompareResult, Bench]:
    bench = Bench(teacher=port)
    nothing = cast("Any", None)
    context = ToolContext(
        cascade=bench.cascade,
        roles=bench.roles,
        releases=cast("Any", bench.releases),
        trainer=nothing,
        teacher=bench.teacher,
        sink=bench.sink,
        jobs=JobBook(folder),
        monitor=bench.monitor,
    )
    told = await call_tool(context, ANN, "compare_responses", {"query": "Capital of France?", **arguments})
    return cast("CompareResult", told), bench


@pytest.mark.parametrize(("agrees", "verdict"), [(True, "agree"), (False, "disagree")])
async def test_free_text_is_judged_by_the_teacher_and_booked(tmp_path: Path, agrees: bool, verdict: str) -> None:
    port = JudgingTeacher(LONG)
    port.agrees = agrees
    told, bench = await compare(tmp_path, port)
    assert (told.verdict, told.reason) == (verdict, "judged by claude-sonnet-5-5: another city")
    assert bench.teacher is not None and bench.teacher.ledger.summary().spent["compare"].calls == 2


async def test_an_answer_that_no_utf8_can_hold_is_the_teachers_fault(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="lone surrogate"):
        await compare(tmp_path, JudgingTeacher("half \ud83d"))


async def test_the_same_words_and_short_forms_need_no_judge(tmp_path: Path) -> None:
    port = JudgingTeacher("Lyon")
    assert (await compare(tmp_path / "a", port))[0].reason.startswith("similarity")
    port.text = "PARIS"
    assert (await compare(tmp_path / "b", port))[0].reason == "the same words"
    assert port.judged == 0


async def test_a_given_response_costs_nothing(tmp_path: Path) -> None:
    port = JudgingTeacher()
    told, bench = await compare(tmp_path, port, teacher_response=LONG)
    assert told.verdict == "agree" and told.reason.startswith("similarity")
    assert port.judged == 0 and bench.teacher is not None and bench.teacher.ledger.calls == 0


@pytest.mark.parametrize("refuses", [TeacherError("cannot judge"), BudgetError("spent")])
async def test_without_a_verdict_embeddings_and_facts_decide(tmp_path: Path, refuses: ShammahError) -> None:
    port = JudgingTeacher(LONG)
    port.refuses = refuses
    assert (await compare(tmp_path, port))[0].reason.startswith("similarity")


async def test_a_teacher_that_can_not_judge_is_no_error(tmp_path: Path) -> None:
    assert (await compare(tmp_path, PlainTeacher(LONG)))[0].reason.startswith("similarity")
