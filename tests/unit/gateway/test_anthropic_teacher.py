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
from shammah_gateway.spending import Spending
from shammah_gateway.teachers.anthropic import AnthropicTeacher
from shammah_gateway.teachers.base import Teacher, Wish
from support.gateway import Bench, ask
from support.messages_stub import MessagesStub, serve_messages

QUESTION = [Message("system", "Be brief."), Message("user", "Capital of France?")]


@pytest.fixture
async def stub() -> AsyncIterator[MessagesStub]:
    async with serve_messages() as served:
        yield served


@pytest.fixture
async def teacher(stub: MessagesStub) -> AsyncIterator[AnthropicTeacher]:
    made = make_teacher(stub)
    yield made
    await made.close()


def make_teacher(stub: MessagesStub, *, key: str | None = "right-key", timeout: float = 20.0) -> AnthropicTeacher:
    return AnthropicTeacher(model="claude-sonnet-5-5", key=key, base_url=stub.url, timeout=timeout, pause_seconds=0.01)


async def test_an_answer_comes_with_model_and_tokens(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    told = await teacher.answer(QUESTION, 50)
    assert (told.text, told.model, told.stop_reason) == ("Paris", "claude-sonnet-5-5", "end_turn")
    assert (told.input_tokens, told.output_tokens) == (12, 3)
    (request,) = stub.requests
    assert request["system"] == "Be brief." and request["max_tokens"] == 50
    assert request["messages"] == [{"role": "user", "content": "Capital of France?"}]


async def test_a_wrong_key_is_a_named_error_without_a_retry(stub: MessagesStub) -> None:
    teacher = make_teacher(stub, key="wrong")
    with pytest.raises(TeacherAuthError):
        await teacher.answer(QUESTION, 50)
    await teacher.close()


async def test_no_key_at_all_is_the_same_error(stub: MessagesStub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    teacher = make_teacher(stub, key=None)
    with pytest.raises(TeacherAuthError):
        await teacher.answer(QUESTION, 50)
    assert stub.requests == []
    await teacher.close()


async def test_a_forbidden_key_is_the_same_error(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.faults = ["403"]
    with pytest.raises(TeacherAuthError):
        await teacher.answer(QUESTION, 50)


async def test_a_teacher_that_hangs_is_too_late(stub: MessagesStub) -> None:
    stub.faults = ["hang", "hang"]
    teacher = make_teacher(stub, timeout=0.3)
    # The import of the SDK takes seconds and must not count.
    with pytest.raises(TeacherTimeoutError):
        await teacher.answer(QUESTION, 50)
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


@pytest.mark.parametrize("fault", ["529", "500", "429", "drop"])
async def test_a_passing_fault_is_tried_once_more_and_not_after_the_servers_300_seconds(
    stub: MessagesStub, teacher: AnthropicTeacher, fault: str
) -> None:
    stub.faults = [fault]
    assert (await teacher.answer(QUESTION, 50)).text == "Paris"


@pytest.mark.parametrize("fault", ["529", "500", "drop"])
async def test_a_lasting_fault_is_a_named_error(stub: MessagesStub, teacher: AnthropicTeacher, fault: str) -> None:
    stub.faults = [fault, fault, fault]
    with pytest.raises(TeacherError) as caught:
        await teacher.answer(QUESTION, 50)
    assert caught.value.code == "teacher_unavailable"
    assert len(stub.faults) == 1


@pytest.mark.parametrize("trouble", ["refusal", "max_tokens"])
async def test_no_example_is_made_of_an_answer_that_is_none(stub: MessagesStub, trouble: str) -> None:
    stub.stop_reason = trouble
    port = make_teacher(stub)
    bench = Bench(no_release=True, teacher=port)  # type: ignore[arg-type]
    with pytest.raises(TeacherError):
        await bench.cascade.ask(ask())
    assert bench.sink.examples == []
    assert bench.teacher.last_error is not None
    await port.close()


async def test_examples_come_by_structured_output(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    rows = [{"query": f"q{index}", "response": "r", "grader": "label"} for index in range(12)]
    stub.text = json.dumps({"examples": rows})
    spending = Spending(None, total=None)
    made = await Teacher(teacher, spending).generate(Wish(category="mood", count=10, focus="short ones"))
    assert len(made.examples) == 10
    assert (made.examples[0].query, made.examples[0].category, made.examples[0].grader) == ("q0", "mood", "label")
    assert spending.spent("teach").input_tokens == 12
    (request,) = stub.requests
    assert request["output_config"]["format"]["type"] == "json_schema"
    assert "tool_choice" not in request


async def test_examples_in_another_form_are_a_named_error(stub: MessagesStub, teacher: AnthropicTeacher) -> None:
    stub.text = '{"rows": []}'
    with pytest.raises(TeacherError):
        await teacher.generate(Wish(category="mood", count=10))


async def test_the_stub_refuses_what_the_api_refuses(stub: MessagesStub) -> None:
    headers = {"x-api-key": "right-key", "anthropic-version": "2026-10-21"}
    good = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    bad: list[dict[str, object]] = [
        {**good, "temperature": 0.0},
        {**good, "tool_choice": {"type": "any"}},
        {name: value for name, value in good.items() if name != "max_tokens"},
        {**good, "messages": [*good["messages"], {"role": "assistant", "content": "pre"}]},  # type: ignore[misc]
    ]
    assert stub.respond(headers, json.dumps(good).encode())[0] == 200
    assert [stub.respond(headers, json.dumps(request).encode())[0] for request in bad] == [400] * 4
    assert stub.respond({**headers, "anthropic-version": "2020-01-01"}, b"{}")[0] == 400
    assert stub.respond({**headers, "x-api-key": "wrong"}, b"{}")[0] == 401
