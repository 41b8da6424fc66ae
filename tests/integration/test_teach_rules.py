"""The offline planner over gRPC against a scripted gateway: errors at each step, kills, budgets, resumes."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from shammah_chassis.errors import (
    BudgetError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    TeacherError,
    UnavailableError,
)
from shammah_gateway.teach.link import Patience
from shammah_gateway.teach.run import choose_planner, resume, teach
from shammah_gateway.teach.settings import Goal, Probe, TeachSettings
from support.school import QUICK, Pupil, Quiet, School, make_place, read_lines
from support.scripted_gateway import serve_scripted

TOOLS = ("AnalyzeModel", "GenerateTrainingData", "Train", "QueryLocalModel", "CompareResponses")
PROBES = (Probe("colour", "colour of the sea", "blue"), Probe("animal", "animal in the hall"))
SETTINGS = TeachSettings(goal=Goal("local_share", 0.6), probes=PROBES)


async def run(root: Path, school: School, settings: TeachSettings = SETTINGS) -> dict[str, Any]:
    return await teach(make_place(root, school), settings, lambda _: Quiet())


async def go_on(root: Path, school: School, **given: Any) -> dict[str, Any]:
    return await resume(make_place(root, school), "last", lambda _: Quiet(), **given)


def work(school: School) -> Counter[str]:
    return Counter({name: count for name, count in school.worked.items() if name != "GetStatus"})


METHODS = dict(
    zip(
        ("analyze_model", "generate_training_data", "train", "query_local_model", "compare_responses"),
        TOOLS,
        strict=True,
    )
)


def check_done_once(school: School, report: dict[str, Any]) -> None:
    """The gateway did the work of each step once, and each example that a step queued was trained once."""
    steps = [step for step in report["steps"] if "value" in step]
    assert work(school) == Counter(METHODS[step["tool"]] for step in steps)
    queued: Counter[str] = Counter()
    for step in steps:
        if step["tool"] == "generate_training_data":
            queued[step["arguments"]["category"]] += step["value"]["queued"]
    assert school.taught == queued


async def clean_run(root: Path, settings: TeachSettings = SETTINGS) -> tuple[Counter[str], Counter[str]]:
    """What a session without any trouble does."""
    async with serve_scripted(School()) as school:
        assert (await run(root / "clean", school, settings))["state"] == "goal"
        return work(school), school.taught


async def test_it_teaches_until_the_goal_and_tells_what_it_did(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        report = await run(tmp_path, school)
    assert report["state"] == "goal"
    assert (report["before"], report["after"] >= 0.6) == (0.0, True)
    assert report["rounds"] == school.worked["Train"] >= 1
    assert report["examples"] == sum(school.taught.values())
    assert report["rejected"]["duplicate"] > 0
    assert {row["category"] for row in report["categories"]} == {"colour", "animal"}
    assert all(row["accuracy_after"] > row["accuracy_before"] for row in report["categories"])
    assert school.worked["CompareResponses"] == school.worked["QueryLocalModel"] > 0
    page = (tmp_path / report["session"] / "report.md").read_text("utf-8")
    assert "certified local share on dev rows" in page
    assert "| colour |" in page


async def test_each_intent_is_in_the_journal_before_it_is_sent_and_its_result_after(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        seen: list[int] = []

        def look(method: str) -> None:
            if method in TOOLS:
                (session,) = tmp_path.iterdir()
                lines = read_lines(tmp_path, session.name)
                assert lines[-1]["kind"] == "intent"
                seen.append(lines[-1]["step"])

        school.on_call = look
        report = await run(tmp_path, school)
    lines = read_lines(tmp_path, report["session"])
    assert seen == [line["step"] for line in lines if line["kind"] == "result"] == list(range(1, len(seen) + 1))
    ids = [line["request_id"] for line in lines if line["kind"] == "intent"]
    assert ids == [f"{report['session']}-{step}" for step in seen]


@pytest.mark.parametrize("fault", ["lost", "job", grpc.StatusCode.UNAVAILABLE, UnavailableError("no release serves")])
@pytest.mark.parametrize("method", TOOLS)
async def test_a_call_that_is_lost_at_any_step_is_made_again_and_its_work_done_once(
    tmp_path: Path, method: str, fault: Any
) -> None:
    expected, taught = await clean_run(tmp_path)
    async with serve_scripted(School()) as school:
        if not (fault == "job" and method == "QueryLocalModel"):
            school.faults[method] = [fault]
        report = await run(tmp_path, school)
    assert report["state"] == "goal"
    assert (work(school), school.taught) == (expected, taught)
    check_done_once(school, report)


@pytest.mark.parametrize("stop_at", range(1, 8))
async def test_a_gateway_that_is_killed_at_any_step_and_comes_back_loses_and_doubles_nothing(
    tmp_path: Path, stop_at: int
) -> None:
    expected, taught = await clean_run(tmp_path)
    school = School()
    reached = asyncio.Event()

    def count(method: str) -> None:
        if sum(name in TOOLS for name, _ in school.asked) == stop_at and method in TOOLS:
            reached.set()

    school.on_call = count
    async with serve_scripted(school):
        task = asyncio.create_task(run(tmp_path, school))
        await asyncio.wait({task, asyncio.create_task(reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
    async with serve_scripted(school):
        report = await task
    assert report["state"] == "goal"
    assert (work(school), school.taught) == (expected, taught)
    check_done_once(school, report)


async def test_a_gateway_that_stays_away_ends_the_session_and_resuming_goes_on_where_it_was(tmp_path: Path) -> None:
    expected, taught = await clean_run(tmp_path)
    school = School()
    root = tmp_path / "sessions"
    short = Patience(away=0.3, unavailable=0.1, first_pause=0.01, last_pause=0.05)
    place = make_place(root, school, patience=short)
    async with serve_scripted(school):
        school.faults["Train"] = ["hang"]
        hung = asyncio.Event()
        school.on_call = lambda method: hung.set() if method == "Train" else None
        task = asyncio.create_task(teach(place, SETTINGS, lambda _: Quiet()))
        await hung.wait()
    report = await task
    assert report["state"] == "unreachable"
    assert [line["kind"] for line in read_lines(root, report["session"])][-2:] == ["intent", "end"]
    watcher = Quiet()
    async with serve_scripted(school):
        report = await resume(make_place(root, school), report["session"], lambda _: watcher)
    assert report["state"] == "goal"
    assert (work(school), school.taught) == (expected, taught)
    check_done_once(school, report)
    assert [replayed for _, replayed in watcher.ended][:3] == [True, True, True]


@pytest.mark.parametrize("cut", range(2, 24))
async def test_a_session_that_was_killed_after_any_line_is_resumed_without_doing_a_step_twice(
    tmp_path: Path, cut: int
) -> None:
    expected, taught = await clean_run(tmp_path)
    root = tmp_path / "sessions"
    async with serve_scripted(School()) as school:
        first = await run(root, school)
        path = root / first["session"] / "journal.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        # The process died while it wrote the line after `cut`; what the gateway did stays done.
        path.write_bytes(b"".join(lines[:cut]) + b'{"n": 9')
        report = await go_on(root, school)
    assert report["state"] == "goal"
    assert (work(school), school.taught) == (expected, taught)
    check_done_once(school, report)
    assert len(report["steps"]) == len(first["steps"])


async def test_a_forbidden_tool_stops_with_the_words_of_the_gateway(tmp_path: Path) -> None:
    words = "this needs the scope 'train'; grant it: shammah tokens grant claude train"
    async with serve_scripted(School()) as school:
        school.faults["Train"] = [ForbiddenError(words)]
        report = await run(tmp_path, school)
        assert (report["state"], report["reason"]) == ("failed", words)
        # Granted meanwhile.
        again = await go_on(tmp_path, school)
        assert (again["state"], school.worked["Train"]) == ("goal", again["rounds"])


async def test_a_failed_round_is_tried_again_after_a_resume(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        school.faults["Train"] = [InvalidInputError("the graph is broken")]
        report = await run(tmp_path, school)
        assert (report["state"], report["reason"]) == ("failed", "the round failed: the graph is broken")
        assert (await go_on(tmp_path, school))["state"] == "goal"


async def test_a_teacher_that_fails_for_one_category_does_not_stop_the_others(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        school.faults["GenerateTrainingData"] = [TeacherError("overloaded")]
        report = await run(tmp_path, school)
    assert report["state"] == "goal"
    assert any(step.get("error_code") == "teacher_unavailable" for step in report["steps"])


async def test_a_teacher_that_makes_nothing_ends_the_session(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        school.faults["GenerateTrainingData"] = [TeacherError("away"), TeacherError("away")]
        report = await run(tmp_path, school)
        assert (report["state"], report["reason"]) == ("failed", "the teacher made nothing: away")
        assert (await go_on(tmp_path, school))["state"] == "goal"


async def test_an_analysis_that_fails_ends_the_session(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        school.faults["AnalyzeModel"] = [NotFoundError("no such category")]
        report = await run(tmp_path, school)
        assert (report["state"], report["reason"]) == ("failed", "the analysis failed: no such category")
        assert (await go_on(tmp_path, school))["state"] == "goal"


async def test_a_cold_start_teaches_the_named_categories_evenly(tmp_path: Path) -> None:
    async with serve_scripted(School(known=False)) as school:
        refused = await run(tmp_path / "unnamed", school, TeachSettings(goal=Goal("local_share", 0.6)))
        assert refused["state"] == "failed"
        assert "--categories" in refused["reason"]
        settings = TeachSettings(goal=Goal("local_share", 0.6), categories=("colour", "animal"), examples=90)
        report = await run(tmp_path, school, settings)
    asked = [step["arguments"] for step in report["steps"] if step["tool"] == "generate_training_data"]
    assert asked[0] == {"category": "animal", "count": 45, "difficulty": "easy"}
    assert report["state"] == "goal"


async def test_it_stops_after_its_rounds_and_more_rounds_go_on(tmp_path: Path) -> None:
    slow = {name: Pupil(rise=0.1) for name in ("colour", "animal")}
    async with serve_scripted(School(pupils=slow)) as school:
        report = await run(tmp_path, school, TeachSettings(rounds=2, goal=Goal("accuracy", 0.9)))
        assert (report["state"], report["rounds"]) == ("rounds", 2)
        before = work(school)
        again = await go_on(tmp_path, school)
        assert (again["state"], work(school)) == ("rounds", before)
        more = await go_on(tmp_path, school, rounds=3)
        assert (more["state"], more["rounds"]) == ("rounds", 3)


async def test_a_category_that_does_not_learn_is_given_up_after_two_rounds(tmp_path: Path) -> None:
    pupils = {"colour": Pupil(rise=0.1), "sums": Pupil(rise=0.0, accuracy=0.05)}
    async with serve_scripted(School(pupils=pupils)) as school:
        report = await run(tmp_path, school, TeachSettings(rounds=20, goal=Goal("accuracy", 0.9)))
    lessons = [step["arguments"]["category"] for step in report["steps"] if step["tool"] == "generate_training_data"]
    assert lessons.count("sums") == 2
    assert lessons.count("colour") > 4
    assert report["state"] == "no_gain"


async def test_a_teacher_without_more_examples_is_said(tmp_path: Path) -> None:
    pupils = {"colour": Pupil(stock=40, rise=0.1)}
    async with serve_scripted(School(pupils=pupils)) as school:
        report = await run(tmp_path, school, TeachSettings(goal=Goal("accuracy", 0.9), rounds=9))
    assert (report["state"], report["examples"]) == ("no_data", 40)
    assert "no more examples" in report["reason"]


async def test_missing_exam_rows_stop_it_and_a_resume_certifies_again(tmp_path: Path) -> None:
    pupils = {"colour": Pupil(rise=0.8, most=0.99, rows_missing=20)}
    async with serve_scripted(School(pupils=pupils)) as school:
        report = await run(tmp_path, school, TeachSettings(goal=Goal("local_share", 0.6)))
        assert report["state"] == "needs_exam"
        assert "certification needs 20 more exam rows (colour 20): shammah learn FILE --exam" in report["reason"]
        again = await go_on(tmp_path, school)
        assert again["state"] == "needs_exam"
        assert len(again["steps"]) == len(report["steps"]) + 2
        pupils["colour"].rows_missing = 0
        done = await go_on(tmp_path, school)
        assert done["state"] == "goal"


async def test_a_budget_stops_before_the_call_that_could_exceed_it(tmp_path: Path) -> None:
    school = School(teacher="anthropic", usd_each=Decimal("0.004"), pupils={"colour": Pupil(rise=0.05)})
    async with serve_scripted(school):
        report = await run(tmp_path, school, TeachSettings(budget_usd=Decimal(2), rounds=50))
        assert report["state"] == "budget"
        assert Decimal("0.5") < Decimal(report["cost_usd"]) <= 2
        assert school.usd == Decimal(report["cost_usd"])
        assert "may cost up to" in report["reason"]
        # The same budget again: nothing more is asked.
        before = work(school)
        assert (await go_on(tmp_path, school))["state"] == "budget"
        assert work(school) == before
        more = await go_on(tmp_path, school, budget_usd=Decimal(3))
        assert Decimal(report["cost_usd"]) < Decimal(more["cost_usd"]) <= 3


async def test_a_recorded_teacher_costs_nothing_under_any_budget(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        report = await run(tmp_path, school, TeachSettings(goal=Goal("local_share", 0.6), budget_usd=Decimal(0)))
    assert (report["state"], report["cost_usd"]) == ("goal", "0")


async def test_a_cap_of_the_gateway_is_the_end_and_told_in_its_words(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        school.faults["GenerateTrainingData"] = [BudgetError("the cap usd_total does not allow the call")]
        report = await run(tmp_path, school)
    assert (report["state"], report["reason"]) == ("budget", "the cap usd_total does not allow the call")


async def test_a_round_with_nothing_to_train_on_is_looked_past(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        school.faults["Train"] = [PreconditionError("nothing to train on")]
        report = await run(tmp_path, school)
    assert report["state"] == "goal"


async def test_a_journal_of_another_version_is_not_resumed(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school:
        report = await run(tmp_path, school)
        path = tmp_path / report["session"] / "journal.jsonl"
        path.write_text(path.read_text("utf-8").replace('"difficulty": "easy"', '"difficulty": "medium"', 1), "utf-8")
        with pytest.raises(PreconditionError, match="another version"):
            await go_on(tmp_path, school)


@pytest.mark.parametrize(("teacher", "planner"), [("recorded", "rules"), ("", "rules"), ("anthropic", "claude")])
async def test_the_planner_follows_the_teacher(tmp_path: Path, teacher: str, planner: str) -> None:
    async with serve_scripted(School(teacher=teacher)) as school:
        assert await choose_planner(make_place(tmp_path, school, patience=QUICK)) == planner


async def test_settings_that_a_resume_changes_hold_from_there_on_only(tmp_path: Path) -> None:
    slow = {name: Pupil(rise=0.1) for name in ("colour", "animal")}
    async with serve_scripted(School(pupils=slow)) as school:
        await run(tmp_path, school, TeachSettings(rounds=1, goal=Goal("accuracy", 0.9), examples=40))
        await go_on(tmp_path, school, rounds=2, examples=100, goal=Goal("accuracy", 0.95))
        report = await go_on(tmp_path, school, rounds=3, examples=60)
    counts = [step["arguments"]["count"] for step in report["steps"] if step["tool"] == "generate_training_data"]
    assert counts == [20, 20, 50, 50, 30, 30]
    assert (report["goal"], school.worked["Train"]) == ("accuracy=0.95", 3)
