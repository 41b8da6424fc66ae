from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import StorageFullError, TeacherTimeoutError
from shammah_gateway import learning
from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.watch import PromiseWatch
from support.gateway import Bench, PlainTeacher, ask, make_release


async def test_a_forwarded_query_becomes_an_example_of_the_teacher() -> None:
    bench = Bench()
    bench.roles.judged = replace(bench.roles.judged, quality=0.1)
    await bench.cascade.ask(ask())
    (example,) = bench.sink.examples
    assert (example.response, example.category, example.grader) == ("Paris", "capitals", "exact")
    assert (example.provenance.origin, example.provenance.propensity) == ("teacher", 1.0)
    assert (example.provenance.teacher, example.provenance.teacher_model) == ("plain", "plain-1")
    assert (example.student_attempt, example.release) == ("Paris", bench.release.id)


@pytest.mark.parametrize(("threshold", "hint"), [(0.8, "train"), (None, "")])
async def test_what_is_forwarded_of_a_served_category_is_no_evidence(threshold: float | None, hint: str) -> None:
    release = make_release()
    policy = replace(release.categories["capitals"], threshold=threshold)
    bench = Bench(release=replace(release, categories={**release.categories, "capitals": policy}))
    bench.roles.judged = replace(bench.roles.judged, quality=0.1)
    await bench.cascade.ask(ask())
    # The caller's word for it, or the router's: either may be the one that is served.
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    await bench.cascade.ask(ask(category="capitals"))
    # Where the router sees none it may be any.
    bench.roles.routed = replace(bench.roles.routed, category="")
    await bench.cascade.ask(ask(category="poems"))
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    await bench.cascade.ask(ask(category="poems"))
    assert [example.part_hint for example in bench.sink.examples] == [hint, hint, hint, ""]


async def test_a_query_for_a_release_of_its_own_choice_is_no_evidence() -> None:
    bench = Bench()
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    await bench.cascade.ask(ask(release=bench.release.id))
    assert [example.part_hint for example in bench.sink.examples] == ["train"]


async def test_what_is_forwarded_of_a_withdrawn_category_is_evidence_again(tmp_path: Path) -> None:
    watch, release = PromiseWatch(PromiseBook(tmp_path / "promise.json")), make_release()
    watch.note_query(release, "capitals")
    for _ in range(50):
        watch.note_audit(release.id, "capitals", good=False)
    bench = Bench(release=release, watch=watch)
    assert (await bench.cascade.ask(ask())).route == "teacher"
    assert [example.part_hint for example in bench.sink.examples] == [""]


async def test_what_the_caller_knows_about_a_query_goes_into_its_example() -> None:
    bench = Bench(no_release=True)
    await bench.cascade.ask(ask(category="geography", grader="label"))
    (example,) = bench.sink.examples
    assert (example.category, example.grader) == ("geography", "label")


async def test_an_example_of_nobodys_category_says_so() -> None:
    bench = Bench(no_release=True)
    await bench.cascade.ask(ask())
    assert bench.sink.examples[0].category == "uncategorised"


async def test_an_audit_sends_a_local_answer_to_the_teacher_and_grades_it() -> None:
    bench = Bench(audit_rate=1.0, teacher=PlainTeacher(text="Lyon"))
    answer = await bench.cascade.ask(ask())
    assert (answer.route, answer.text) == ("local", "Paris")
    await bench.learner.wait_idle(5)
    (example,) = bench.sink.examples
    assert (example.provenance.origin, example.provenance.propensity) == ("audit", 1.0)
    assert example.part_hint == "train"
    assert (example.response, example.student_attempt) == ("Lyon", "Paris")
    assert bench.monitor.audited == (1, 1)
    assert bench.teacher.ledger.summary().spent["audit"].calls == 1


async def test_an_agreeing_audit_is_no_error() -> None:
    bench = Bench(audit_rate=1.0)
    await bench.cascade.ask(ask())
    await bench.learner.wait_idle(5)
    assert bench.monitor.audited == (1, 0)


async def test_an_audit_needs_its_scope_and_learning() -> None:
    bench = Bench(audit_rate=1.0)
    await bench.cascade.ask(ask(may_audit=False))
    await bench.cascade.ask(ask(no_learn=True))
    await bench.learner.wait_idle(5)
    assert bench.port.asked == [] and bench.monitor.audited == (0, 0)


async def test_an_audit_that_the_teacher_fails_hurts_nobody() -> None:
    bench = Bench(audit_rate=1.0, teacher=PlainTeacher(error=TeacherTimeoutError("late")))
    assert (await bench.cascade.ask(ask())).route == "local"
    await bench.learner.wait_idle(5)
    assert bench.sink.examples == [] and bench.monitor.audited == (0, 0)


async def test_exploration_lets_the_student_try_a_forwarded_query_and_grades_it() -> None:
    bench = Bench(explore_rate=1.0)
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    answer = await bench.cascade.ask(ask())
    assert answer.route == "teacher"
    await bench.learner.wait_idle(5)
    (example,) = bench.sink.examples
    assert (example.provenance.origin, example.student_attempt, example.part_hint) == ("explore", "Paris", "")
    assert (bench.monitor.explorations["poems"].graded, bench.monitor.explorations["poems"].bad) == (1, 0)


async def test_a_teachers_answer_is_kept_although_too_much_runs_to_explore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MAX_BACKGROUND", 0)
    bench = Bench(explore_rate=1.0)
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    await bench.cascade.ask(ask())
    (example,) = bench.sink.examples
    assert (example.provenance.origin, example.response, bench.monitor.dropped) == ("teacher", "Paris", 1)


async def test_a_teachers_answer_is_kept_when_the_stop_cuts_an_exploration_short() -> None:
    bench = Bench(explore_rate=1.0)
    bench.roles.routed = replace(bench.roles.routed, category="poems")
    bench.roles.hangs = True
    await bench.cascade.ask(ask())
    await bench.learner.wait_idle(0.05)
    (example,) = bench.sink.examples
    assert (example.provenance.origin, example.response, example.student_attempt) == ("teacher", "Paris", "")


@pytest.mark.parametrize("origin", ["explore", "audit"])
async def test_a_teachers_answer_is_kept_when_the_stop_cuts_its_grading_short(
    monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    begun, end = threading.Event(), threading.Event()
    grade = learning.grade

    def hold(*given: Any) -> Any:
        begun.set()
        end.wait(10)
        return grade(*given)

    monkeypatch.setattr(learning, "grade", hold)
    bench = Bench(explore_rate=1.0, audit_rate=1.0)
    if origin == "explore":
        bench.roles.routed = replace(bench.roles.routed, category="poems")
    await bench.cascade.ask(ask())
    assert await asyncio.to_thread(begun.wait, 10)
    await bench.learner.wait_idle(0)
    end.set()
    (example,) = bench.sink.examples
    assert (example.provenance.origin, example.response, example.student_attempt) == (origin, "Paris", "Paris")
    assert (bench.monitor.audited, bench.monitor.explorations) == ((0, 0), {})


async def test_a_query_that_must_not_be_learned_leaves_nothing() -> None:
    bench = Bench(no_release=True, explore_rate=1.0)
    await bench.cascade.ask(ask(no_learn=True))
    await bench.learner.wait_idle(5)
    assert bench.sink.examples == []


@pytest.mark.parametrize("error", [StorageFullError("full"), FileExistsError(17, "File exists"), KeyError("a fault")])
async def test_an_example_that_finds_no_room_is_counted_and_the_user_still_has_the_answer(error: Exception) -> None:
    bench = Bench(no_release=True)
    bench.sink.error = error
    assert (await bench.cascade.ask(ask())).text == "Paris"
    assert bench.monitor.lost_examples == 1


@pytest.mark.parametrize("rates", [{}, {"explore_rate": 1.0}, {"audit_rate": 1.0}])
@pytest.mark.parametrize("text", ["half \ud83d", "x" * 100_001])
async def test_an_answer_that_can_be_no_example_is_counted_on_every_way(text: str, rates: dict[str, float]) -> None:
    bench = Bench(teacher=PlainTeacher(text=text), **rates)
    if "audit_rate" not in rates:
        bench.roles.judged = replace(bench.roles.judged, quality=0.1)
    await bench.cascade.ask(ask())
    await bench.learner.wait_idle(5)
    assert (bench.monitor.lost_examples, bench.sink.examples) == (1, [])
