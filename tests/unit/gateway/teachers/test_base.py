from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import pytest
from shammah_chassis.errors import (
    BudgetError,
    ShammahError,
    TeacherAuthError,
    TeacherRefusedError,
    TeacherTimeoutError,
)
from shammah_chassis.examples import Message
from shammah_gateway.money.usage import Usage
from shammah_gateway.teachers.base import Generation, Teacher, TeacherAnswer, Wish, report_billed
from support.gateway import PlainTeacher, make_ledger

ASKED = (Message("user", "What is the capital of France?"),)
SONNET = "claude-sonnet-5-5"
# 10 cents.
DIME = Usage(output_tokens=10_000)


@dataclass
class PaidTeacher:
    """Bills a dime for each attempt; `error` is raised instead of an answer, after `billed` attempts."""

    error: ShammahError | None = None
    billed: int = 0
    hangs: bool = False
    name: str = "paid"
    models: tuple[str, ...] = (SONNET,)

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        for _ in range(self.billed):
            report_billed(SONNET, DIME)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return TeacherAnswer("Paris", SONNET, "end_turn", DIME)

    async def generate(self, wish: Wish) -> Generation:
        return Generation((), SONNET, DIME)

    def categories(self) -> None:
        return None


async def test_an_answer_is_booked_by_purpose_and_caller() -> None:
    teacher = Teacher(PaidTeacher(), make_ledger())
    await teacher.answer(ASKED, 10, purpose="compare", caller="ann")
    await teacher.generate(Wish(category="x", count=10), caller="ann")
    summary = teacher.ledger.summary()
    assert (summary.spent["compare"].usd, summary.spent["teach"].usd) == (Decimal("0.1"), Decimal("0.1"))
    assert summary.callers == {"ann": Decimal("0.2")}


async def test_a_refusal_that_was_billed_is_booked() -> None:
    teacher = Teacher(PaidTeacher(error=TeacherRefusedError("no"), billed=1), make_ledger(usd_total=Decimal(9)))
    with pytest.raises(TeacherRefusedError):
        await teacher.answer(ASKED, 10, purpose="answer")
    summary = teacher.ledger.summary()
    assert (summary.spent_usd, summary.unknown_calls, summary.unsettled_usd) == (Decimal("0.1"), 0, 0)
    assert teacher.last_error is not None


async def test_attempts_that_were_cut_are_booked_with_the_one_that_was_not() -> None:
    teacher = Teacher(PaidTeacher(billed=2), make_ledger())
    await teacher.answer(ASKED, 10, purpose="answer")
    summary = teacher.ledger.summary()
    assert (summary.spent_usd, summary.spent["answer"].calls) == (Decimal("0.3"), 1)


async def test_a_failure_that_was_not_billed_costs_nothing() -> None:
    teacher = Teacher(PaidTeacher(error=TeacherAuthError("wrong key")), make_ledger(usd_total=Decimal(9)))
    with pytest.raises(TeacherAuthError):
        await teacher.answer(ASKED, 10, purpose="answer")
    summary = teacher.ledger.summary()
    assert (summary.levels[0].charged, summary.levels[0].held, summary.spent["answer"].calls) == (0, 0, 1)


async def test_a_call_that_was_late_stays_charged_by_what_it_may_have_cost() -> None:
    teacher = Teacher(PaidTeacher(error=TeacherTimeoutError("late")), make_ledger(usd_total=Decimal(9)))
    with pytest.raises(TeacherTimeoutError):
        await teacher.answer(ASKED, 1000, purpose="answer")
    summary = teacher.ledger.summary()
    # 1,000 tokens out are a cent; the prompt comes on top.
    assert summary.levels[0].charged == summary.unsettled_usd > Decimal("0.01")
    assert summary.unknown_calls == 1


async def test_a_call_that_was_given_up_stays_charged() -> None:
    teacher = Teacher(PaidTeacher(hangs=True), make_ledger(usd_total=Decimal(9)))
    asking = asyncio.create_task(teacher.answer(ASKED, 1000, purpose="answer"))
    async with asyncio.timeout(5):
        while not teacher.ledger.summary().levels[0].held:
            await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    level = teacher.ledger.summary().levels[0]
    assert level.held == 0 and level.charged > 0


async def test_at_a_cap_the_teacher_is_not_asked() -> None:
    port = PlainTeacher()
    teacher = Teacher(port, make_ledger(usd_per_caller=Decimal("0.000001")))
    with pytest.raises(BudgetError, match="usd_per_caller_per_day of 'ann'"):
        await teacher.answer(ASKED, 1000, purpose="answer", caller="ann")
    assert port.asked == []


async def test_a_model_without_a_price_is_not_asked_under_a_cap_in_usd() -> None:
    port = PlainTeacher(models=("claude-sonnet-5-5", "gpt-oss"))
    teacher = Teacher(port, make_ledger(usd_per_day=Decimal(100)))
    with pytest.raises(BudgetError, match="gpt-oss"):
        await teacher.answer(ASKED, 10, purpose="answer")
    assert port.asked == []


async def test_a_teacher_that_calls_no_paid_model_is_free_under_any_cap() -> None:
    port = PlainTeacher(models=())
    teacher = Teacher(port, make_ledger(usd_per_day=Decimal(0)))
    teacher.check("audit")
    await teacher.answer(ASKED, 10, purpose="answer")
    assert len(port.asked) == 1
