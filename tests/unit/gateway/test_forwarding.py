"""The cascade for doors that pass a teacher's bytes through: decide, learn, degrade; and routes that stick."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from shammah_chassis.errors import (
    BudgetError,
    InvalidInputError,
    PreconditionError,
    ShammahError,
    TeacherError,
    UnavailableError,
)
from shammah_chassis.examples import Message
from shammah_chassis.releases import CategoryPolicy, Rung
from shammah_gateway import learning
from shammah_gateway.cascade import Decision
from shammah_gateway.money.caps import Caps
from shammah_gateway.values import Answer, Query
from support.gateway import Bench, PlainTeacher, ask, make_release

LADDER = (Rung(0.02, 0.9), Rung(0.01, 0.95))
TURNS = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Capital of France?"))


def ladder_release(**changes: object) -> object:
    policy = CategoryPolicy(threshold=0.8, rows=500, max_new_tokens=16, ladder=LADDER)
    return make_release(categories={"capitals": policy}, **changes)


def bench_at(quality: float, **changes: object) -> Bench:
    bench = Bench(**changes)  # type: ignore[arg-type]
    bench.roles.judged = type(bench.roles.judged)(quality, 0.2, 0.9, 0.9, 0.1, "low", False, "v1")
    return bench


async def forwarded(bench: Bench, query: Query | None = None) -> Decision:
    decision = await bench.cascade.decide(query or ask())
    assert decision.local is None
    return decision


async def learn(bench: Bench, decision: Decision, **changes: object) -> Answer:
    told = {"text": "Paris", "model": "claude-x", "stop_reason": "end_turn", "input_tokens": 12, "output_tokens": 3}
    return await bench.cascade.learn_forwarded(decision, **{**told, **changes})  # type: ignore[arg-type]


async def test_a_local_decision_is_the_answer_with_the_students_own_token_counts() -> None:
    bench = Bench()
    statistics = {"length": 3.0, "prompt_tokens": 21.0}
    bench.roles.generated = type(bench.roles.generated)("Paris", "stop", statistics, "g1")
    decision = await bench.cascade.decide(ask())
    assert decision.local is not None
    assert (decision.local.route, decision.local.reason, decision.local.text) == ("local", "quality", "Paris")
    assert (decision.local.input_tokens, decision.local.output_tokens) == (21, 3)
    assert decision.local.stop_reason == "end_turn"
    assert decision.local.query_id == decision.query_id
    assert bench.port.asked == []


async def test_a_forwarding_decision_asks_nobody_and_says_why_and_by_which_release() -> None:
    bench = bench_at(0.1)
    decision = await forwarded(bench)
    assert (decision.trial.reason, decision.trial.category) == ("low_quality", "capitals")
    assert (decision.trial.versions.release, decision.trial.confidence) == (bench.release.id, 0.1)
    assert bench.port.asked == [] and bench.sink.examples == []


async def test_a_forwarded_answer_is_learned_just_as_one_that_was_asked_for() -> None:
    asked, passed = bench_at(0.1), bench_at(0.1)
    passed.release = passed.releases.current = asked.release
    told = await asked.cascade.ask(ask())
    answer = await learn(passed, await forwarded(passed), model="plain-1", input_tokens=10, output_tokens=2)
    (one,), (other,) = passed.sink.examples, asked.sink.examples
    # Each is of its own request; all else is the same.
    assert one.request == answer.query_id and other.request == told.query_id != one.request
    assert replace(one, request=other.request) == other
    for name in ("text", "route", "reason", "category", "confidence", "versions", "teacher_model", "stop_reason"):
        assert getattr(answer, name) == getattr(told, name)
    assert (answer.input_tokens, answer.output_tokens) == (told.input_tokens, told.output_tokens) == (10, 2)


@pytest.mark.parametrize("stop", [None, "", "max_tokens", "refusal", "tool_use", "pause_turn", "stop_sequence"])
async def test_an_answer_that_did_not_come_to_its_end_is_no_example(stop: str | None) -> None:
    bench = bench_at(0.1, explore_rate=1.0)
    answer = await learn(bench, await forwarded(bench), stop_reason=stop)
    await bench.learner.wait_idle(5)
    assert (answer.route, answer.input_tokens, answer.stop_reason) == ("teacher", 12, stop or "")
    assert bench.sink.examples == [] and bench.monitor.explorations == {}


@pytest.mark.parametrize("text", ["", "  \n", "x" * 100_001])
async def test_an_answer_without_text_or_beyond_an_example_is_none_and_no_error(text: str) -> None:
    bench = bench_at(0.1)
    await learn(bench, await forwarded(bench), text=text)
    assert bench.sink.examples == []
    assert bench.monitor.lost_examples == (len(text) > 100_000)


async def test_nothing_is_learned_of_a_query_that_says_so() -> None:
    bench = bench_at(0.1, explore_rate=1.0)
    await learn(bench, await forwarded(bench, ask(no_learn=True)))
    await bench.learner.wait_idle(5)
    assert bench.sink.examples == []


async def test_the_coins_of_the_decision_explore_a_forwarded_answer() -> None:
    bench = bench_at(0.1, explore_rate=1.0)
    await learn(bench, await forwarded(bench), text="Lyon")
    await bench.learner.wait_idle(5)
    (example,) = bench.sink.examples
    assert (example.provenance.origin, example.response, example.student_attempt) == ("explore", "Lyon", "Paris")
    assert (bench.monitor.explorations["capitals"].graded, bench.monitor.explorations["capitals"].bad) == (1, 1)


async def test_a_local_decision_is_audited_by_its_coin() -> None:
    bench = Bench(audit_rate=1.0, teacher=PlainTeacher(text="Lyon"))
    assert (await bench.cascade.decide(ask())).local is not None
    await bench.learner.wait_idle(5)
    assert bench.monitor.audited == (1, 1)


async def test_local_only_decides_locally_or_refuses() -> None:
    bench = bench_at(0.1)
    decision = await bench.cascade.decide(ask(local_only=True, allow_degraded=True))
    assert decision.local is not None
    assert (decision.local.route, decision.local.reason) == ("degraded", "local_only")
    with pytest.raises(PreconditionError, match="low_quality"):
        await bench.cascade.decide(ask(local_only=True))


async def test_a_cut_degraded_answer_says_that_it_is_cut() -> None:
    bench = Bench()
    bench.roles.generated = type(bench.roles.generated)("Par", "length", {}, "g1")
    decision = await bench.cascade.decide(ask(local_only=True, allow_degraded=True))
    assert decision.local is not None and decision.local.stop_reason == "max_tokens"


async def test_a_spent_budget_degrades_where_the_gateway_is_set_so_though_the_caller_did_not_ask() -> None:
    bench = bench_at(0.1, max_calls=0, at_cap="degrade")
    answer = await bench.cascade.ask(ask())
    assert (answer.route, answer.reason, answer.text) == ("degraded", "budget", "Paris")
    assert bench.port.asked == [] and bench.sink.examples == []
    decision = await forwarded(bench)
    again = await bench.cascade.degrade(decision, BudgetError("spent"))
    assert (again.route, again.reason, again.query_id) == ("degraded", "budget", decision.query_id)


async def test_a_spent_budget_is_an_error_by_default_and_when_the_student_is_away_too() -> None:
    with pytest.raises(BudgetError):
        await bench_at(0.1, max_calls=0).cascade.ask(ask())
    with pytest.raises(BudgetError):
        await Bench(no_release=True, max_calls=0, at_cap="degrade").cascade.ask(ask())


async def test_other_failures_degrade_only_for_callers_who_allow_it() -> None:
    bench = bench_at(0.1, at_cap="degrade")
    with pytest.raises(TeacherError):
        await bench.cascade.degrade(await forwarded(bench), TeacherError("down"))
    decision = await forwarded(bench, ask(allow_degraded=True))
    answer = await bench.cascade.degrade(decision, TeacherError("down"))
    assert (answer.route, answer.reason) == ("degraded", "low_quality")
    nobody = Bench(no_release=True)
    with pytest.raises(UnavailableError, match="neither"):
        await nobody.cascade.degrade(await forwarded(nobody, ask(allow_degraded=True)), TeacherError("down"))


@pytest.mark.parametrize(
    ("alpha", "quality", "route", "reason"),
    [
        (0.0, 0.85, "local", "quality"),
        (0.05, 0.85, "local", "quality"),
        (0.04, 0.85, "teacher", "low_quality"),
        (0.04, 0.9, "local", "quality"),
        (0.02, 0.9, "local", "quality"),
        (0.015, 0.94, "teacher", "low_quality"),
        (0.01, 0.95, "local", "quality"),
        (0.009, 1.0, "teacher", "uncertified"),
    ],
)
async def test_a_stricter_alpha_takes_the_threshold_of_the_next_certified_rung(
    alpha: float, quality: float, route: str, reason: str
) -> None:
    bench = bench_at(quality, release=ladder_release())
    answer = await bench.cascade.ask(ask(alpha=alpha))
    assert (answer.route, answer.reason) == (route, reason)


async def test_a_release_without_ladders_serves_nothing_under_a_stricter_alpha() -> None:
    bench = Bench()
    answer = await bench.cascade.ask(ask(alpha=0.02))
    assert (answer.route, answer.reason) == ("teacher", "uncertified")
    assert [name for name, _ in bench.roles.calls] == ["route"]


@pytest.mark.parametrize("alpha", [0.06, 1.0, 1.5, -0.1, float("nan")])
async def test_a_laxer_or_impossible_alpha_is_refused_before_any_work(alpha: float) -> None:
    bench = Bench()
    with pytest.raises(InvalidInputError, match="alpha"):
        await bench.cascade.decide(ask(alpha=alpha))
    assert bench.roles.calls == []


async def test_a_laxer_alpha_names_what_the_pinned_release_allows() -> None:
    bench = Bench()
    other = make_release(alpha=0.01)
    bench.releases.others[other.id] = other
    with pytest.raises(InvalidInputError, match=f"up to 0.01, what release {other.id}"):
        await bench.cascade.decide(ask(alpha=0.02, release=other.id))


async def test_a_conversation_that_was_forwarded_stays_with_the_teacher_without_asking_any_role() -> None:
    bench = bench_at(0.1)
    await bench.cascade.ask(ask("Hi"))
    bench.roles.judged = Bench().roles.judged
    bench.roles.calls.clear()
    decision = await forwarded(bench, ask(messages=TURNS))
    assert (decision.trial.reason, decision.trial.versions.release) == ("conversation", bench.release.id)
    assert bench.roles.calls == []
    assert (await bench.cascade.decide(ask("Hi there"))).local is not None


async def test_a_local_conversation_may_go_to_the_teacher_and_then_never_comes_back() -> None:
    bench = Bench()
    routes = []
    for quality in (0.9, 0.9, 0.1, 0.9, 0.9):
        bench.roles.judged = type(bench.roles.judged)(quality, 0.2, 0.9, 0.9, 0.1, "low", False, "v1")
        decision = await bench.cascade.decide(ask(messages=TURNS, conversation="s"))
        routes.append(decision.local.route if decision.local else decision.trial.reason)
    assert routes == ["local", "local", "low_quality", "conversation", "conversation"]


async def test_local_only_is_stronger_than_a_conversations_route() -> None:
    bench = bench_at(0.1)
    await bench.cascade.ask(ask("Hi"))
    bench.roles.judged = Bench().roles.judged
    decision = await bench.cascade.decide(ask(messages=TURNS, local_only=True))
    assert decision.local is not None and decision.local.route == "local"


async def test_what_a_door_knows_to_be_the_teachers_is_not_tried_but_gets_its_category_for_the_example() -> None:
    bench = Bench()
    decision = await forwarded(bench, ask(forward_reason="requested"))
    assert (decision.trial.reason, bench.roles.calls) == ("requested", [])
    await learn(bench, decision)
    await bench.learner.wait_idle(5)
    (example,) = bench.sink.examples
    assert (example.category, example.provenance.origin, example.student_attempt) == ("capitals", "teacher", "")
    assert [name for name, _ in bench.roles.calls] == ["route"]
    assert bench.monitor.categories["capitals"] == 1


async def test_an_attempt_that_is_wanted_is_made_though_the_door_forwards() -> None:
    bench = Bench()
    answer = await bench.cascade.ask(ask(forward_reason="requested", want_attempt=True))
    assert (answer.route, answer.reason) == ("teacher", "requested")
    assert answer.attempt is not None and answer.attempt.text == "Paris"


@pytest.mark.parametrize("full", [True, False])
async def test_an_example_keeps_no_category_when_the_router_cannot_be_asked(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    bench.roles.errors["route"] = ShammahError("broken")
    if full:
        monkeypatch.setattr(learning, "MAX_BACKGROUND", 0)
    await learn(bench, await forwarded(bench, ask(forward_reason="requested")))
    await bench.learner.wait_idle(5)
    assert [example.category for example in bench.sink.examples] == ["uncategorised"]


async def test_a_sampled_query_is_not_kept_waiting_for_the_router() -> None:
    bench = Bench()
    decision = await forwarded(bench, ask(temperature=0.7))
    assert (decision.trial.reason, bench.roles.calls) == ("uncertified", [])


async def test_the_teacher_is_asked_in_the_name_of_the_caller_and_an_audit_in_nobodys() -> None:
    bench = Bench(audit_rate=1.0)
    bench.teacher.ledger.caps = Caps(usd_per_caller=Decimal(0))  # type: ignore[union-attr, misc]
    await bench.cascade.ask(ask(user="ann"))
    await bench.learner.wait_idle(5)
    assert bench.monitor.audited == (1, 0)
    bench.roles.judged = bench_at(0.1).roles.judged
    with pytest.raises(BudgetError):
        await bench.cascade.ask(ask(user="ann"))
