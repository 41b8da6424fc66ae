from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.errors import (
    BudgetError,
    DeadlineError,
    InvalidInputError,
    OverloadedError,
    PreconditionError,
    ShammahError,
    TeacherTimeoutError,
    TooLongError,
    UnavailableError,
    UnknownReleaseError,
)
from shammah_chassis.examples import Message
from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.watch import PromiseWatch
from support.gateway import Bench, PlainTeacher, ask, make_release


async def test_a_certified_category_with_enough_quality_is_answered_locally() -> None:
    bench = Bench()
    answer = await bench.cascade.ask(ask())
    assert (answer.route, answer.reason, answer.text) == ("local", "quality", "Paris")
    assert (answer.versions.router, answer.versions.generator, answer.versions.validator) == ("r1", "g1", "v1")
    assert answer.versions.release == bench.release.id
    assert bench.port.asked == [] and bench.sink.examples == []


async def test_quality_just_at_the_threshold_is_served_and_just_under_it_is_not() -> None:
    bench = Bench()
    bench.roles.judged = replace(bench.roles.judged, quality=0.8)
    assert (await bench.cascade.ask(ask())).route == "local"
    bench.roles.judged = replace(bench.roles.judged, quality=0.7999)
    answer = await bench.cascade.ask(ask())
    assert (answer.route, answer.reason) == ("teacher", "low_quality")


async def test_a_category_without_a_threshold_is_forwarded_before_the_student_works() -> None:
    bench = Bench()
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    answer = await bench.cascade.ask(ask())
    assert (answer.route, answer.reason, answer.category) == ("teacher", "uncertified", "poems")
    assert [name for name, _ in bench.roles.calls] == ["route"]


@pytest.mark.parametrize(
    ("changes", "query", "reason"),
    [
        ({"category": ""}, ask(), "unknown_category"),
        ({"category": "nobody knows"}, ask(), "uncertified"),
        ({"local_probability": 0.29}, ask(), "router"),
        ({"truncated": True}, ask(), "uncertified"),
        ({}, ask(temperature=0.7), "uncertified"),
        ({}, ask("Какая столица Франции?"), "uncertified"),
        ({}, ask("法国的首都是什么"), "uncertified"),
    ],
)
async def test_what_is_outside_the_certificate_is_forwarded_with_the_reason(
    changes: dict[str, object], query: object, reason: str
) -> None:
    bench = Bench()
    bench.roles.routed = replace(bench.roles.routed, **changes)
    answer = await bench.cascade.ask(query)  # type: ignore[arg-type]
    assert (answer.route, answer.reason) == ("teacher", reason)


async def test_a_response_cut_at_the_callers_limit_is_forwarded() -> None:
    bench = Bench()
    bench.roles.generated = replace(bench.roles.generated, finish="length")
    answer = await bench.cascade.ask(ask(max_tokens=4))
    assert (answer.route, answer.reason) == ("teacher", "uncertified")
    assert dict(bench.roles.calls)["generate"]["max_tokens"] == 4


@pytest.mark.parametrize(("wanted", "limit"), [(0, 16), (8, 8), (500, 16)])
async def test_the_student_never_writes_more_than_the_category_allows(wanted: int, limit: int) -> None:
    bench = Bench()
    await bench.cascade.ask(ask(max_tokens=wanted))
    assert dict(bench.roles.calls)["generate"]["max_tokens"] == limit


@pytest.mark.parametrize("role", ["route", "generate", "validate"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DeadlineError("late"), "late"),
        (OverloadedError("full"), "overloaded"),
        (UnavailableError("away"), "unavailable"),
        (UnknownReleaseError("let go"), "unavailable"),
        (ShammahError("broken"), "unavailable"),
        (TooLongError("prompt too long"), "uncertified"),
    ],
)
async def test_a_role_that_fails_means_the_teacher_with_the_reason(role: str, error: ShammahError, reason: str) -> None:
    bench = Bench()
    bench.roles.errors[role] = error
    answer = await bench.cascade.ask(ask())
    assert (answer.route, answer.reason) == ("teacher", reason)


async def test_without_a_release_every_query_goes_to_the_teacher() -> None:
    answer = await Bench(no_release=True).cascade.ask(ask())
    assert (answer.route, answer.reason, answer.versions.release) == ("teacher", "unavailable", "")


async def test_without_a_teacher_a_forwarded_query_is_unavailable_unless_degraded_is_allowed() -> None:
    bench = Bench(no_teacher=True)
    bench.roles.judged = replace(bench.roles.judged, quality=0.1)
    with pytest.raises(UnavailableError):
        await bench.cascade.ask(ask())
    answer = await bench.cascade.ask(ask(allow_degraded=True))
    assert (answer.route, answer.reason, answer.text) == ("degraded", "low_quality", "Paris")


async def test_degraded_runs_the_student_where_the_query_was_forwarded_before_it() -> None:
    bench = Bench(no_teacher=True)
    bench.roles.routed = replace(bench.roles.routed, category="")
    answer = await bench.cascade.ask(ask(allow_degraded=True))
    assert (answer.route, answer.reason, answer.text) == ("degraded", "unknown_category", "Paris")
    assert dict(bench.roles.calls)["generate"]["max_tokens"] == 64


async def test_degraded_is_honest_when_the_student_is_away_too() -> None:
    bench = Bench(no_teacher=True)
    bench.roles.errors["generate"] = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await bench.cascade.ask(ask(allow_degraded=True))


async def test_local_only_never_asks_the_teacher() -> None:
    bench = Bench()
    bench.roles.judged = replace(bench.roles.judged, quality=0.1)
    with pytest.raises(PreconditionError):
        await bench.cascade.ask(ask(local_only=True))
    answer = await bench.cascade.ask(ask(local_only=True, allow_degraded=True))
    assert (answer.route, answer.reason) == ("degraded", "local_only")
    assert bench.port.asked == []


async def test_a_wanted_attempt_is_made_where_the_query_is_forwarded_and_the_reason_stays() -> None:
    bench = Bench()
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    answer = await bench.cascade.ask(ask(want_attempt=True, no_learn=True))
    assert (answer.route, answer.reason) == ("teacher", "uncertified")
    assert answer.attempt is not None and (answer.attempt.text, answer.attempt.quality) == ("Paris", 0.9)
    assert bench.sink.examples == []


async def test_an_attempt_that_nobody_wanted_is_not_returned() -> None:
    bench = Bench()
    bench.roles.judged = replace(bench.roles.judged, quality=0.1)
    assert (await bench.cascade.ask(ask())).attempt is None


async def test_a_teachers_error_reaches_the_user_and_makes_no_example() -> None:
    bench = Bench(teacher=PlainTeacher(error=TeacherTimeoutError("late")), no_release=True)
    with pytest.raises(TeacherTimeoutError):
        await bench.cascade.ask(ask())
    assert bench.sink.examples == []


async def test_a_spent_budget_is_an_error_and_the_teacher_is_not_called() -> None:
    bench = Bench(no_release=True, max_calls=1)
    await bench.cascade.ask(ask())
    with pytest.raises(BudgetError):
        await bench.cascade.ask(ask())
    assert len(bench.port.asked) == 1


async def test_a_named_release_serves_instead_of_the_champion() -> None:
    bench = Bench()
    other = make_release(categories={})
    bench.releases.others[other.id] = other
    answer = await bench.cascade.ask(ask(release=other.id))
    assert (answer.versions.release, answer.reason) == (other.id, "uncertified")
    with pytest.raises(UnknownReleaseError):
        await bench.cascade.ask(ask(release="01UNKNOWN"))


async def test_the_champion_is_read_once_so_a_switch_midway_changes_nothing() -> None:
    bench = Bench()
    first = bench.release
    original = bench.roles.route

    async def route(release: str, query: str, *, timeout: float) -> object:
        bench.releases.current = make_release()
        return await original(release, query, timeout=timeout)

    bench.roles.route = route  # type: ignore[method-assign, assignment]
    await bench.cascade.ask(ask())
    assert {detail["release"] for _, detail in bench.roles.calls} == {first.id}


async def test_other_turns_are_fine_and_only_the_last_user_turn_is_routed() -> None:
    bench = Bench()
    turns = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"))
    answer = await bench.cascade.ask(ask(messages=(*turns, Message("user", "Capital of France?"))))
    assert answer.route == "local"
    assert dict(bench.roles.calls)["route"]["query"] == "Capital of France?"


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (ask(messages=()), InvalidInputError),
        (ask("   "), InvalidInputError),
        (ask("x" * 32_001), TooLongError),
        (ask(messages=(Message("assistant", "Hello"),)), InvalidInputError),
        (ask(messages=(Message("robot", "Hello"), Message("user", "Hi"))), InvalidInputError),
        (ask(max_tokens=-1), InvalidInputError),
        (ask(max_tokens=128_001), InvalidInputError),
        (ask(conversation="c" * 257), TooLongError),
        (ask(temperature=2.1), InvalidInputError),
        (ask(temperature=float("nan")), InvalidInputError),
        (ask(grader="taste"), InvalidInputError),
    ],
)
async def test_bad_input_is_refused_before_any_work(query: object, kind: type[ShammahError]) -> None:
    bench = Bench()
    with pytest.raises(kind):
        await bench.cascade.ask(query)  # type: ignore[arg-type]
    assert bench.roles.calls == [] and bench.port.asked == []


async def test_a_withdrawn_category_is_forwarded_by_the_first_queries_after_a_restart(tmp_path: Path) -> None:
    release = make_release()
    watch = PromiseWatch(PromiseBook(tmp_path / "promise.json"))
    watch.note_query(release, "capitals")
    for _ in range(12):
        watch.note_audit(release.id, "capitals", good=False)
    # Queries that nothing is learned from, and those of a release that they name, are never noted by the watch.
    for query in (ask(no_learn=True), ask(release=release.id), ask()):
        bench = Bench(release=release, watch=PromiseWatch(PromiseBook(tmp_path / "promise.json")))
        answer = await bench.cascade.ask(query)
        assert (answer.route, answer.reason) == ("teacher", "withdrawn")
