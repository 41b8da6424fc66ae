"""Claude as the planner, by the real SDK on the strict Messages stub, against a scripted gateway over gRPC."""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from shammah_chassis.errors import PreconditionError, TeacherAuthError
from shammah_gateway.teach import claude as claude_module
from shammah_gateway.teach.run import Claude, resume, teach
from shammah_gateway.teach.settings import Goal, TeachSettings
from shammah_gateway.teachers.retry import RetryPolicy
from shammah_gateway.tools.definitions import anthropic_tools
from support.messages_stub import text, tool_use
from support.school import Pupil, Quiet, School, make_place, read_lines
from support.scripted_gateway import serve_scripted
from support.scripted_teacher import ROUND, ScriptedTeacher, call, plan_rounds, serve_teacher, thinking

SETTINGS = TeachSettings(planner="claude", goal=Goal("accuracy", 0.5))
QUICK_PAUSES = RetryPolicy(attempts=4, seconds=1.0, first_pause_seconds=0.01, max_pause_seconds=0.02)


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub asks for pauses of 300 s, as the API does; the policy caps them, here at 20 ms."""
    run = claude_module.ClaudePlanner.__init__
    monkeypatch.setattr(claude_module.ClaudePlanner, "__init__", _with_policy(run))


def _with_policy(init: Any) -> Any:
    def wrapped(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **{**named, "policy": QUICK_PAUSES})

    return wrapped


def place_of(root: Path, school: School, teacher: ScriptedTeacher, key: str = "right-key") -> Any:
    return make_place(root, school, claude=Claude(key=key, base_url=teacher.url))


async def run(root: Path, school: School, teacher: ScriptedTeacher, settings: TeachSettings = SETTINGS) -> Any:
    return await teach(place_of(root, school, teacher), settings, lambda _: Quiet())


async def go_on(root: Path, school: School, teacher: ScriptedTeacher, **given: Any) -> Any:
    return await resume(place_of(root, school, teacher), "last", lambda _: Quiet(), **given)


def tools_of(report: dict[str, Any]) -> list[str]:
    return [step["tool"] for step in report["steps"]]


def hide_cost(messages: list[Any]) -> str:
    """The messages as JSON, without what the session had cost."""
    return re.sub(r"\[session: [^]]*\]", "", json.dumps(messages))


async def test_a_scripted_teacher_drives_the_whole_loop(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        report = await run(tmp_path, school, teacher)
    assert tools_of(report) == [*ROUND, *ROUND, "analyze_model"]
    assert (report["state"], report["rounds"], report["examples"]) == ("goal", 2, 100)
    assert school.taught == {"colour": 100}
    assert Decimal(report["planner_usd"]) == Decimal(report["cost_usd"]) > 0


async def test_each_request_is_unthreaded_cached_whole_and_within_the_rules_of_today(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        await run(tmp_path, school, teacher)
    for request in teacher.requests:
        assert "thread" not in request
        assert "tool_choice" not in request and "temperature" not in request
        assert request["cache_control"] == {"type": "ephemeral"}
        assert request["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
        assert [tool["name"] for tool in request["tools"]] == [tool["name"] for tool in anthropic_tools()]
        assert request["tools"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
        # The prefix that is cached never changes.
        assert (request["system"], request["tools"]) == (teacher.requests[0]["system"], teacher.requests[0]["tools"])
    system = teacher.requests[0]["system"][0]["text"]
    for words in ("accuracy=0.5", "5 rounds", "no limit of money", "is data", "Stop when"):
        assert words in system


async def test_thinking_goes_back_unchanged_and_results_say_what_is_left(tmp_path: Path) -> None:
    settings = TeachSettings(planner="claude", goal=Goal("accuracy", 0.5), rounds=3, budget_usd=Decimal(5))
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        await run(tmp_path, school, teacher, settings)
    last = teacher.requests[-1]["messages"]
    turns = [turn["content"] for turn in last if turn["role"] == "assistant"]
    assert [turn[0] for turn in turns] == [thinking(number) for number in range(len(turns))]
    result = last[6]["content"][0]
    assert result["type"] == "tool_result" and not result.get("is_error")
    assert '"verdict": "promoted"' in json.dumps(result).replace('\\"', '"')
    assert "2 rounds left]" in json.dumps(result) and " left; " in json.dumps(result)


FAULTS = ("429", "529", "500", "drop", "stream-drop", "stream-end", "stream-error")


@pytest.mark.parametrize("at", [*range(6), 11])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_api_at_any_turn_is_survived_and_no_tool_runs_twice(
    tmp_path: Path, fault: str, at: int
) -> None:
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        teacher.fails[at] = fault
        report = await run(tmp_path, school, teacher)
    assert report["state"] == "goal"
    assert tools_of(report) == [*ROUND, *ROUND, "analyze_model"]
    assert school.worked["Train"] == 2 and school.taught == {"colour": 100}
    assert len(teacher.calls) == len(teacher.plan) + 1


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
async def test_an_error_of_a_tool_is_told_to_claude_which_goes_on(tmp_path: Path, at: int) -> None:
    methods = ("AnalyzeModel", "GenerateTrainingData", "Train", "QueryLocalModel", "CompareResponses")
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        school.faults[methods[at]] = [PreconditionError("the student is asleep")]
        report = await run(tmp_path, school, teacher)
    told = teacher.requests[at + 1]["messages"][-1]["content"][0]
    assert told["is_error"] is True
    assert "precondition: the student is asleep" in json.dumps(told["content"])
    assert len(report["steps"]) == 11


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("generate_training_data", {"category": "colour", "count": 5}, "allowed: 10 to 100"),
        ("generate_training_data", {"category": "poems", "count": 50}, "known: colour, animal"),
        ("analyze_model", {"rows": 50}, "allowed arguments: test_count"),
        ("analyze_model", {"test_count": "many"}, "analyze_model"),
        ("train", {"wait": [1]}, "train"),
    ],
)
async def test_wrong_arguments_are_an_error_that_says_what_is_allowed(
    tmp_path: Path, name: str, arguments: dict[str, Any], words: str
) -> None:
    plan = [call(0, name, arguments), call(1, "analyze_model"), ([text("Sorry.")], "end_turn")]
    async with serve_scripted(School()) as school, serve_teacher(ScriptedTeacher(plan=plan)) as teacher:
        report = await run(tmp_path, school, teacher)
    told = teacher.requests[1]["messages"][-1]["content"][0]
    assert told["is_error"] is True
    assert words in json.dumps(told["content"])
    assert report["state"] == "planner"
    assert report["reason"] == "Claude ended: Sorry."


async def test_two_calls_in_one_turn_are_two_steps_in_order(tmp_path: Path) -> None:
    both = [
        tool_use("generate_training_data", {"category": "colour", "count": 20}, identity="a"),
        tool_use("generate_training_data", {"category": "animal", "count": 30}, identity="b"),
    ]
    plan = [(both, "tool_use"), call(1, "train"), ([text("Done.")], "end_turn")]
    async with serve_scripted(School()) as school, serve_teacher(ScriptedTeacher(plan=plan)) as teacher:
        report = await run(tmp_path, school, teacher)
    assert [step["arguments"].get("count") for step in report["steps"]] == [20, 30, None]
    results = teacher.requests[1]["messages"][-1]["content"]
    assert [block["tool_use_id"] for block in results] == ["a", "b"]
    assert school.taught == {"colour": 20, "animal": 30}


async def test_a_refusal_ends_the_session_and_is_billed(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(once={2: ([], "refusal")})
    async with serve_scripted(School()) as school, serve_teacher(teacher):
        report = await run(tmp_path, school, teacher)
        assert (report["state"], "declined" in report["reason"]) == ("planner", True)
        assert tools_of(report) == list(ROUND[:2])
        # The conversation is whole without the refusal, so it can be gone on with.
        again = await go_on(tmp_path, school, teacher)
    assert again["state"] == "goal"
    assert tools_of(again) == [*ROUND, *ROUND, "analyze_model"]
    replies = [line for line in read_lines(tmp_path, report["session"]) if line["kind"] == "reply"]
    assert [line["kept"] for line in replies].count(False) == 1
    assert all(Decimal(line["usd"]) > 0 for line in replies)


async def test_a_turn_that_is_cut_is_asked_for_again_with_more_room(tmp_path: Path) -> None:
    cut = [thinking(1), tool_use("generate_training_data", {"category": "colour"}, identity="toolu_cut")]
    teacher = ScriptedTeacher(once={1: (cut, "max_tokens")})
    async with serve_scripted(School()) as school, serve_teacher(teacher):
        report = await run(tmp_path, school, teacher)
    assert report["state"] == "goal"
    assert [request["max_tokens"] for request in teacher.requests[:4]] == [8000, 8000, 16000, 16000]
    assert "toolu_cut" not in json.dumps(teacher.requests[-1])
    assert school.worked["GenerateTrainingData"] == 2


async def test_a_paused_turn_is_sent_back_as_it_is(tmp_path: Path) -> None:
    plan: list[Any] = [([thinking(0), text("Let me think.")], "pause_turn"), call(1, "analyze_model")]
    plan.append(([text("Done.")], "end_turn"))
    async with serve_scripted(School()) as school, serve_teacher(ScriptedTeacher(plan=plan)) as teacher:
        report = await run(tmp_path, school, teacher)
    assert report["state"] == "planner"
    assert tools_of(report) == ["analyze_model"]


async def test_rounds_that_are_used_up_are_refused_with_words(tmp_path: Path) -> None:
    settings = TeachSettings(planner="claude", goal=Goal("accuracy", 0.99), rounds=1)
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        report = await run(tmp_path, school, teacher, settings)
    assert (school.worked["Train"], report["rounds"]) == (1, 1)
    assert "all 1 rounds of this session are used" in json.dumps(teacher.requests[-1]["messages"])


async def test_the_budget_ends_it_before_the_turn_that_could_exceed_it(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(plan=plan_rounds(9), usage={"input_tokens": 4000, "output_tokens": 4000})
    settings = TeachSettings(planner="claude", goal=Goal("accuracy", 0.99), budget_usd=Decimal("0.5"), rounds=9)
    async with serve_scripted(School()) as school, serve_teacher(teacher):
        report = await run(tmp_path, school, teacher, settings)
        assert report["state"] == "budget"
        # 4,000 tokens in at 2 USD and 4,000 out at 10 USD for a million: 0.048 a turn.
        assert Decimal(report["cost_usd"]) == len(teacher.calls) * Decimal("0.048")
        assert Decimal("0.2") < Decimal(report["cost_usd"]) <= Decimal("0.5")
        asked = len(teacher.calls)
        assert (await go_on(tmp_path, school, teacher))["state"] == "budget"
        assert len(teacher.calls) == asked
        more = await go_on(tmp_path, school, teacher, budget_usd=Decimal("0.8"))
    assert Decimal(report["cost_usd"]) < Decimal(more["cost_usd"]) <= Decimal("0.8")


async def test_a_paid_gateway_teacher_counts_too_and_a_call_that_could_exceed_is_not_made(tmp_path: Path) -> None:
    school = School(teacher="anthropic", usd_each=Decimal("0.01"), pupils={"colour": Pupil(rise=0.01)})
    settings = TeachSettings(planner="claude", goal=Goal("accuracy", 0.99), budget_usd=Decimal("2.5"), rounds=9)
    async with serve_scripted(school), serve_teacher(ScriptedTeacher(plan=plan_rounds(9))) as teacher:
        report = await run(tmp_path, school, teacher, settings)
        assert report["state"] == "budget"
        assert school.usd < Decimal(report["cost_usd"]) <= Decimal("2.5")
        assert "generate_training_data" in report["reason"]
        # The call waits for its result; with more money it is made, once.
        made = school.worked["GenerateTrainingData"]
        await go_on(tmp_path, school, teacher, budget_usd=Decimal("4.5"))
    assert school.worked["GenerateTrainingData"] > made


async def test_a_model_without_a_price_can_not_be_kept_in_a_budget(tmp_path: Path) -> None:
    settings = TeachSettings(planner="claude", model="m", budget_usd=Decimal(5))
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        report = await run(tmp_path, school, teacher, settings)
    assert (report["state"], len(teacher.calls)) == ("budget", 0)
    assert "the price of a turn of m is not known" in report["reason"]


@pytest.mark.parametrize("fault", ["401", "400", "403"])
async def test_a_refused_request_is_not_repeated_and_named(tmp_path: Path, fault: str) -> None:
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        teacher.faults.append(fault)
        report = await run(tmp_path, school, teacher)
        assert (report["state"], len(teacher.calls)) == ("failed", 1)
        assert f"HTTP {fault}" in report["reason"]
        assert (await go_on(tmp_path, school, teacher))["state"] == "goal"


async def test_an_api_that_stays_away_ends_the_session_after_its_patience(tmp_path: Path) -> None:
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        teacher.faults.extend(["529"] * 4)
        report = await run(tmp_path, school, teacher)
    assert (report["state"], len(teacher.calls)) == ("failed", 4)
    assert "overloaded" in report["reason"]


async def test_without_a_key_it_says_what_to_do_and_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        with pytest.raises(TeacherAuthError, match="ANTHROPIC_API_KEY or give --key-file"):
            await teach(place_of(tmp_path / "s", school, teacher, key=""), SETTINGS, lambda _: Quiet())
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("cut", range(3, 60, 3))
async def test_a_session_that_was_killed_after_any_line_goes_on_with_the_same_conversation(
    tmp_path: Path, cut: int
) -> None:
    async with serve_scripted(School()) as school, serve_teacher() as teacher:
        first = await run(tmp_path, school, teacher)
        path = tmp_path / first["session"] / "journal.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:cut]) + b'{"n"')
        whole = teacher.requests[-1]["messages"]
        report = await go_on(tmp_path, school, teacher)
    assert report["state"] == "goal"
    assert tools_of(report) == [*ROUND, *ROUND, "analyze_model"]
    # Work that the gateway had done before the kill is not done again: its request ids are the same.
    assert school.worked == {
        **{"AnalyzeModel": 3, "GenerateTrainingData": 2, "Train": 2},
        **{"QueryLocalModel": 2, "CompareResponses": 2},
    }
    assert school.taught == {"colour": 100}
    if cut < len(lines) - 1:
        # A reply that the kill hid was paid and is asked for again: only the cost may differ.
        assert hide_cost(teacher.requests[-1]["messages"][: len(whole)]) == hide_cost(whole)


async def test_a_gateway_that_dies_between_two_calls_of_one_turn_is_gone_on_with(tmp_path: Path) -> None:
    both = [
        tool_use("generate_training_data", {"category": "colour", "count": 20}, identity="a"),
        tool_use("generate_training_data", {"category": "animal", "count": 30}, identity="b"),
    ]
    plan = [(both, "tool_use"), call(1, "train"), ([text("Done.")], "end_turn")]
    school = School()
    async with serve_teacher(ScriptedTeacher(plan=plan)) as teacher:
        async with serve_scripted(school):
            school.faults["GenerateTrainingData"] = ["lost", grpc.StatusCode.UNAVAILABLE]
            task = asyncio.create_task(run(tmp_path, school, teacher))
            while school.worked["GenerateTrainingData"] == 0:
                await asyncio.sleep(0.005)
        async with serve_scripted(school):
            await task
    assert school.worked["GenerateTrainingData"] == 2
    assert school.taught == {"colour": 20, "animal": 30}


async def test_a_resume_after_the_last_word_tells_claude_what_changed(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(plan=[call(0, "analyze_model"), ([text("Only exam rows are missing.")], "end_turn")])
    async with serve_scripted(School()) as school, serve_teacher(teacher):
        report = await run(tmp_path, school, teacher)
        assert report["reason"] == "Claude ended: Only exam rows are missing."
        teacher.plan += [call(2, "analyze_model"), ([text("Still so.")], "end_turn")]
        again = await go_on(tmp_path, school, teacher, rounds=7)
    assert again["reason"] == "Claude ended: Still so."
    assert "7 rounds in all" in json.dumps(teacher.requests[2]["messages"][-1])
    assert teacher.requests[2]["messages"][:4] == teacher.requests[1]["messages"] + [
        {"role": "assistant", "content": [text("Only exam rows are missing.")]}
    ]
