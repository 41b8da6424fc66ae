"""The real SDK against the strict stub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from shammah_chassis.errors import (
    TeacherAuthError,
    TeacherError,
    TeacherRefusedError,
    TeacherTimeoutError,
    TeacherTruncatedError,
)
from shammah_chassis.examples import Message
from shammah_gateway.money.usage import Usage
from shammah_gateway.teachers.anthropic import DEFAULT_BASE_URL, STREAM_ABOVE_TOKENS, AnthropicTeacher
from shammah_gateway.teachers.base import Teacher, Wish
from support.gateway import Bench, ask, make_ledger
from support.guards import Clock, make_guard
from support.messages_http import Call, Wire, serve
from support.messages_stub import MessagesStub, serve_messages

QUESTION = [Message("system", "Be brief."), Message("user", "Capital of France?")]
LONG = STREAM_ABOVE_TOKENS + 1


@pytest.fixture
async def stub() -> AsyncIterator[MessagesStub]:
    async with serve_messages() as served:
        yield served


@pytest.fixture
async def teacher(stub: MessagesStub, clock: Clock) -> AsyncIterator[AnthropicTeacher]:
    made = make_teacher(stub, clock)
    yield made
    await made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_teacher(
    stub: MessagesStub, clock: Clock, *, key: str | None = "right-key", seconds: float = 20.0
) -> AnthropicTeacher:
    guard = make_guard(clock, seconds=seconds)
    return AnthropicTeacher(model="claude-sonnet-5-5", key=key, base_url=stub.url, guard=guard)


async def test_an_answer_comes_with_model_and_tokens(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    told = await teacher.answer(QUESTION, 50)
    assert (told.text, told.model, told.stop_reason) == ("Paris", "claude-sonnet-5-5", "end_turn")
    assert (told.input_tokens, told.output_tokens) == (12, 3)
    (request,) = stub.requests
    assert request["system"] == "Be brief." and request["max_tokens"] == 50
    assert request["messages"] == [{"role": "user", "content": "Capital of France?"}]


async def test_a_wrong_key_is_a_named_error_without_a_retry(stub: MessagesStub, clock: Clock) -> None:
    teacher = make_teacher(stub, clock, key="wrong")
    with pytest.raises(TeacherAuthError):
        await teacher.answer(QUESTION, 50)
    assert len(stub.calls) == 1 and clock.slept == []
    await teacher.close()


async def test_no_key_at_all_is_the_same_error(
    stub: MessagesStub, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    teacher = make_teacher(stub, clock, key=None)
    with pytest.raises(TeacherAuthError):
        await teacher.answer(QUESTION, 50)
    assert stub.requests == []
    await teacher.close()


async def test_a_forbidden_key_is_the_same_error(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.faults = ["403"]
    with pytest.raises(TeacherAuthError):
        await teacher.answer(QUESTION, 50)


async def test_a_teacher_that_hangs_is_too_late(stub: MessagesStub, clock: Clock) -> None:
    stub.faults = ["hang", "hang"]
    teacher = make_teacher(stub, clock, seconds=0.3)
    # The import of the SDK takes seconds and must not count.
    with pytest.raises(TeacherTimeoutError):
        await teacher.answer(QUESTION, 50)
    assert stub.faults == ["hang"]
    stub.hold.set()
    await teacher.close()


async def test_a_refusal_is_no_answer(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.stop_reason = "refusal"
    with pytest.raises(TeacherRefusedError):
        await teacher.answer(QUESTION, 50)


@pytest.mark.parametrize("stop", ["max_tokens", "model_context_window_exceeded", None])
async def test_a_cut_answer_is_no_answer(stub: MessagesStub, teacher: AnthropicTeacher, stop: str | None) -> None:
    stub.stop_reason = stop
    with pytest.raises(TeacherTruncatedError):
        await teacher.answer(QUESTION, 50)


async def test_an_empty_answer_is_no_answer(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.text = "  "
    with pytest.raises(TeacherError):
        await teacher.answer(QUESTION, 50)


@pytest.mark.parametrize(("fault", "pause"), [("529", 2.0), ("500", 0.5), ("429", 2.0), ("429:1", 1.0), ("drop", 0.5)])
async def test_a_passing_fault_is_tried_once_more_and_not_after_the_servers_300_seconds(
    stub: MessagesStub, teacher: AnthropicTeacher, clock: Clock, fault: str, pause: float
) -> None:
    stub.faults = [fault]
    assert (await teacher.answer(QUESTION, 50)).text == "Paris"
    assert clock.slept == [pause]


@pytest.mark.parametrize("fault", ["529", "500", "drop"])
async def test_a_lasting_fault_is_a_named_error(stub: MessagesStub, teacher: AnthropicTeacher, fault: str) -> None:
    stub.faults = [fault, fault, fault]
    with pytest.raises(TeacherError) as caught:
        await teacher.answer(QUESTION, 50)
    assert caught.value.code == "teacher_unavailable"
    assert len(stub.faults) == 1


async def test_a_long_answer_is_streamed_with_its_usage(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.text = "Paris, of course"
    stub.usage = {"input_tokens": 40, "output_tokens": 7, "cache_read_input_tokens": 5}
    told = await teacher.answer(QUESTION, LONG)
    assert (told.text, told.stop_reason, told.model) == ("Paris, of course", "end_turn", "claude-sonnet-5-5")
    assert told.usage == Usage(input_tokens=40, output_tokens=7, cache_read=5)
    assert stub.requests[0]["stream"] is True


@pytest.mark.parametrize("fault", ["stream-drop", "stream-end", "stream-error"])
async def test_a_stream_that_breaks_is_asked_for_again_and_nothing_of_it_is_kept(
    stub: MessagesStub, teacher: AnthropicTeacher, clock: Clock, fault: str
) -> None:
    stub.faults = [fault]
    assert (await teacher.answer(QUESTION, LONG)).text == "Paris"
    assert len(stub.requests) == 2 and clock.slept == [0.5]


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("stream-drop", "teacher_truncated", "cut off"),
        ("stream-end", "teacher_truncated", "without a stop reason"),
        ("stream-error", "teacher_unavailable", "overloaded"),
    ],
)
async def test_a_stream_that_keeps_breaking_is_a_named_error_and_no_example(
    stub: MessagesStub, clock: Clock, fault: str, code: str, said: str
) -> None:
    stub.faults = [fault, fault]
    port = make_teacher(stub, clock)
    bench = Bench(no_release=True, teacher=port)  # type: ignore[arg-type]
    with pytest.raises(TeacherError, match=said) as caught:
        await bench.cascade.ask(ask(max_tokens=LONG))
    assert caught.value.code == code
    assert bench.sink.examples == []
    await port.close()


async def test_a_reply_that_is_no_message_is_the_servers_fault(clock: Clock) -> None:
    async def answer_html(call: Call, wire: Wire) -> None:
        await wire.reply(200, b"<html>maintenance</html>", {"content-type": "text/html"})

    async with serve(answer_html) as url:
        teacher = AnthropicTeacher(model="m", key="k", base_url=url, guard=make_guard(clock))
        for length in (50, LONG):
            with pytest.raises(TeacherError):
                await teacher.answer(QUESTION, length)
        await teacher.close()
    assert clock.slept == [0.5, 0.5]


async def test_the_environments_address_is_not_used_as_it_may_be_this_gateway(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:8080")
    teacher = AnthropicTeacher(model="m", key="k", guard=make_guard(clock))
    client = await teacher._connect()
    assert str(client.base_url).rstrip("/") == DEFAULT_BASE_URL
    await teacher.close()


async def test_after_failures_in_a_row_the_server_is_not_asked_and_later_it_is(
    stub: MessagesStub, teacher: AnthropicTeacher, clock: Clock
) -> None:
    stub.faults = ["500"] * 5
    for _ in range(3):
        with pytest.raises(TeacherError):
            await teacher.answer(QUESTION, 50)
    asked = len(stub.requests)
    with pytest.raises(TeacherError, match="left alone"):
        await teacher.answer(QUESTION, 50)
    assert asked == len(stub.requests) == 5
    clock.now += 15
    assert (await teacher.answer(QUESTION, 50)).text == "Paris"
    assert teacher.guard.breaker.state == "closed"


async def test_refusals_are_not_held_against_the_server(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.stop_reason = "refusal"
    for _ in range(8):
        with pytest.raises(TeacherRefusedError):
            await teacher.answer(QUESTION, 50)
    assert teacher.guard.breaker.state == "closed"


@pytest.mark.parametrize("trouble", ["refusal", "max_tokens", "model_context_window_exceeded", None, "empty"])
async def test_no_example_is_made_of_an_answer_that_is_none(
    stub: MessagesStub, clock: Clock, trouble: str | None
) -> None:
    if trouble == "empty":
        stub.text = " "
    else:
        stub.stop_reason = trouble
    port = make_teacher(stub, clock)
    bench = Bench(no_release=True, teacher=port)  # type: ignore[arg-type]
    with pytest.raises(TeacherError):
        await bench.cascade.ask(ask())
    assert bench.sink.examples == []
    assert bench.teacher.last_error is not None
    await port.close()


async def test_examples_come_by_structured_output(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    rows = [{"query": f"q{index}", "response": "r", "grader": "label"} for index in range(12)]
    stub.text = json.dumps({"examples": rows})
    ledger = make_ledger()
    made = await Teacher(teacher, ledger).generate(Wish(category="mood", count=10, focus="short ones"))
    assert len(made.examples) == 10
    assert (made.examples[0].query, made.examples[0].category, made.examples[0].grader) == ("q0", "mood", "label")
    assert ledger.summary().spent["teach"].input_tokens == 12
    (request,) = stub.requests
    assert request["output_config"]["format"]["type"] == "json_schema"
    assert "tool_choice" not in request


async def test_examples_in_another_form_are_a_named_error(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.text = '{"rows": []}'
    with pytest.raises(TeacherError):
        await teacher.generate(Wish(category="mood", count=10))
