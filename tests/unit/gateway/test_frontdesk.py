"""What every door's queries leave behind: counts, savings, and the memory that feedback needs."""

from __future__ import annotations

import pytest
from shammah_chassis.errors import InvalidInputError, NotFoundError, TeacherError
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.values import Judged
from support.gateway import Bench, PlainTeacher, ask, make_ledger

WEAK = Judged(0.1, 0.2, 0.9, 0.9, 0.1, "low", False, "v1")


def make_desk(bench: Bench, ledger: Ledger | None = None) -> FrontDesk:
    return FrontDesk(bench.cascade, bench.monitor, FeedbackDesk(bench.sink, daily_weight=100), ledger)


async def test_a_local_answer_is_counted_booked_as_saved_and_can_be_rated() -> None:
    bench, ledger = Bench(), make_ledger()
    desk = make_desk(bench, ledger)
    answer = await desk.ask(ask())
    decided = await desk.decide(ask("What is the capital of Italy?"))
    assert answer.route == "local" and decided.local is not None
    assert (bench.monitor.queries, bench.monitor.local) == (2, 2)
    assert [one.answers for one in ledger.summary().saved.values()] == [2]
    for known in (answer, decided.local):
        assert (await desk.feedback.rate("owner", known.query_id, -1, "")).effect == "judge_only"


async def test_a_forwarded_answer_is_counted_when_it_is_finished_and_saves_nothing() -> None:
    bench, ledger = Bench(), make_ledger()
    bench.roles.judged = WEAK
    desk = make_desk(bench, ledger)
    decision = await desk.decide(ask())
    assert decision.local is None and bench.monitor.queries == 0
    answer = await desk.finish(decision, text="Paris", model="m", stop_reason="end_turn")
    assert answer.route == "teacher" and bench.monitor.forwarded == 1 and len(bench.sink.examples) == 1
    assert ledger.summary().saved == {}
    assert (await desk.feedback.rate("owner", answer.query_id, 1, "")).effect == "example"


async def test_a_query_that_may_not_be_learned_from_is_not_remembered() -> None:
    bench = Bench()
    desk = make_desk(bench)
    answer = await desk.ask(ask(no_learn=True))
    with pytest.raises(Exception, match="no answer"):
        await desk.feedback.rate("owner", answer.query_id, 1, "")


async def test_a_degraded_answer_saves_nothing() -> None:
    bench, ledger = Bench(teacher=PlainTeacher(error=TeacherError("away"))), make_ledger()
    bench.roles.judged = WEAK
    answer = await make_desk(bench, ledger).ask(ask(allow_degraded=True))
    assert answer.route == "degraded" and ledger.summary().saved == {}


async def test_an_answer_without_text_is_not_remembered() -> None:
    bench = Bench()
    bench.roles.judged = WEAK
    desk = make_desk(bench)
    answer = await desk.finish(await desk.decide(ask()), text=" ", model="m", stop_reason="end_turn")
    with pytest.raises(NotFoundError):
        await desk.feedback.rate("owner", answer.query_id, 1, "")


async def test_who_was_passed_over_is_in_the_answer() -> None:
    bench = Bench(teacher=PlainTeacher(passed_over=(("anthropic", "overloaded"),)))
    bench.roles.judged = WEAK
    assert (await make_desk(bench).ask(ask())).passed_over == (("anthropic", "overloaded"),)


async def test_another_teacher_answers_and_if_it_fails_too_its_error_is_told() -> None:
    bench = Bench()
    bench.roles.judged = WEAK
    desk = make_desk(bench)
    answer = await desk.replace(await desk.decide(ask()), TeacherError("away"), by_others=True)
    assert (answer.route, answer.text) == ("teacher", "Paris") and len(bench.sink.examples) == 1
    bench.port.error = TeacherError("away too")
    with pytest.raises(TeacherError, match="away too"):
        await desk.replace(await desk.decide(ask()), TeacherError("away"), by_others=True)


async def test_failures_are_counted_and_the_callers_own_mistakes_are_not() -> None:
    bench = Bench(teacher=PlainTeacher(error=TeacherError("away")))
    bench.roles.judged = WEAK
    desk = make_desk(bench)
    with pytest.raises(TeacherError):
        await desk.ask(ask())
    decision = await desk.decide(ask())
    with pytest.raises(TeacherError):
        await desk.replace(decision, TeacherError("away"), by_others=False)
    with pytest.raises(InvalidInputError):
        await desk.ask(ask(""))
    desk.fail()
    assert (bench.monitor.queries, bench.monitor.failed) == (3, 3)


async def test_a_query_that_nobody_decided_on_is_counted_with_its_reason() -> None:
    bench = Bench()
    make_desk(bench).pass_over("routing_off")
    assert (bench.monitor.forwarded, bench.monitor.reasons["routing_off"]) == (1, 1)
