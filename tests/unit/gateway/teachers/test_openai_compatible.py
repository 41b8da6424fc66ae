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
from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage
from shammah_gateway.teachers.base import Wish
from shammah_gateway.teachers.openai_compatible import OpenAICompatibleTeacher, OutputForm
from support.chat_stub import ChatStub, serve_chat
from support.gateway import Bench, ask
from support.guards import Clock, make_guard

QUESTION = [Message("system", "Be brief."), Message("user", "Capital of France?")]
ROWS = [{"query": f"q{index}", "response": "r", "grader": "label"} for index in range(12)]


@pytest.fixture
async def stub() -> AsyncIterator[ChatStub]:
    async with serve_chat() as served:
        yield served


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def teacher(stub: ChatStub, clock: Clock) -> AsyncIterator[OpenAICompatibleTeacher]:
    made = make_teacher(stub, clock)
    yield made
    await made.close()


def make_teacher(
    stub: ChatStub, clock: Clock, *, key: str | None = None, seconds: float = 20.0, form: OutputForm = "json_schema"
) -> OpenAICompatibleTeacher:
    guard = make_guard(clock, name="openai", seconds=seconds)
    return OpenAICompatibleTeacher(model="open-1", base_url=f"{stub.url}/", key=key, form=form, guard=guard)


async def test_an_answer_comes_with_model_and_tokens(stub: ChatStub, teacher: OpenAICompatibleTeacher) -> None:
    stub.usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    told = await teacher.answer(QUESTION, 50)
    assert (told.text, told.model, told.stop_reason) == ("Paris", "open-1", "end_turn")
    # Cached tokens are no plain input.
    assert told.usage == Usage(input_tokens=4, output_tokens=3, cache_read=8)
    (request,) = stub.requests
    assert request == {
        "model": "open-1",
        "max_tokens": 50,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Capital of France?"},
        ],
    }


async def test_a_server_that_counts_nothing_is_no_failure(stub: ChatStub, teacher: OpenAICompatibleTeacher) -> None:
    stub.usage = None
    assert (await teacher.answer(QUESTION, 50)).usage == UNKNOWN_USAGE


async def test_the_key_is_sent_and_a_wrong_one_is_a_named_error(stub: ChatStub, clock: Clock) -> None:
    stub.key = "right"
    good, bad = make_teacher(stub, clock, key="right"), make_teacher(stub, clock, key="wrong")
    assert (await good.answer(QUESTION, 50)).text == "Paris"
    with pytest.raises(TeacherAuthError, match="wrong key"):
        await bad.answer(QUESTION, 50)
    assert clock.slept == []
    await good.close()
    await bad.close()


@pytest.mark.parametrize(
    ("fault", "pause"),
    [("429", 2.0), ("500", 0.5), ("529", 0.5), ("drop", 0.5), ("short", 0.5), ("half", 0.5), ("empty", 0.5)],
)
async def test_a_passing_fault_is_tried_once_more(
    stub: ChatStub, teacher: OpenAICompatibleTeacher, clock: Clock, fault: str, pause: float
) -> None:
    stub.faults = [fault]
    assert (await teacher.answer(QUESTION, 50)).text == "Paris"
    assert clock.slept == [pause]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("429", "teacher_unavailable"),
        ("500", "teacher_unavailable"),
        ("drop", "teacher_unavailable"),
        ("empty", "teacher_unavailable"),
        ("short", "teacher_truncated"),
        ("half", "teacher_truncated"),
        ("504", "teacher_timeout"),
    ],
)
async def test_a_lasting_fault_is_a_named_error(
    stub: ChatStub, teacher: OpenAICompatibleTeacher, fault: str, code: str
) -> None:
    stub.faults = [fault] * 3
    with pytest.raises(TeacherError) as caught:
        await teacher.answer(QUESTION, 50)
    assert caught.value.code == code
    assert len(stub.faults) == 1


async def test_a_refused_request_is_not_repeated(stub: ChatStub, teacher: OpenAICompatibleTeacher) -> None:
    stub.faults = ["400", "400"]
    with pytest.raises(TeacherError, match="told to fail with 400"):
        await teacher.answer(QUESTION, 50)
    assert len(stub.requests) == 1


async def test_the_servers_word_against_a_retry_is_kept(stub: ChatStub, teacher: OpenAICompatibleTeacher) -> None:
    stub.faults, stub.headers = ["500"], {"x-should-retry": "false"}
    with pytest.raises(TeacherError):
        await teacher.answer(QUESTION, 50)
    assert len(stub.requests) == 1


async def test_a_server_that_hangs_is_too_late(stub: ChatStub, clock: Clock) -> None:
    stub.faults = ["hang"]
    teacher = make_teacher(stub, clock, seconds=0.1)
    with pytest.raises(TeacherTimeoutError):
        await teacher.answer(QUESTION, 50)
    await teacher.close()


async def test_a_server_that_is_not_there_can_not_be_reached(clock: Clock) -> None:
    guard = make_guard(clock, name="openai")
    teacher = OpenAICompatibleTeacher(model="m", base_url="http://127.0.0.1:1/v1", guard=guard)
    with pytest.raises(TeacherError, match="can't be reached"):
        await teacher.answer(QUESTION, 50)
    await teacher.close()


async def test_a_wrong_path_says_what_the_server_said(stub: ChatStub, clock: Clock) -> None:
    guard = make_guard(clock, name="openai")
    teacher = OpenAICompatibleTeacher(model="m", base_url=stub.url.removesuffix("/v1"), guard=guard)
    with pytest.raises(TeacherError, match=r"HTTP 404.*Not Found"):
        await teacher.answer(QUESTION, 50)
    await teacher.close()


@pytest.mark.parametrize(
    ("finish", "message", "error"),
    [
        ("length", {}, TeacherTruncatedError),
        (None, {}, TeacherTruncatedError),
        ("content_filter", {}, TeacherRefusedError),
        ("stop", {"content": None, "refusal": "I can't"}, TeacherRefusedError),
        ("stop", {"content": "  "}, TeacherError),
        ("stop", {"content": None}, TeacherError),
        ("stop", {"content": "<think>Let me see"}, TeacherTruncatedError),
        ("tool_calls", {"content": None}, TeacherError),
    ],
)
async def test_what_is_no_whole_answer_is_a_named_error_and_no_example(
    stub: ChatStub, clock: Clock, finish: str | None, message: dict[str, object], error: type[TeacherError]
) -> None:
    stub.finish, stub.message = finish, message
    port = make_teacher(stub, clock)
    bench = Bench(no_release=True, teacher=port)  # type: ignore[arg-type]
    with pytest.raises(error):
        await bench.cascade.ask(ask())
    assert bench.sink.examples == []
    await port.close()


async def test_thoughts_are_no_part_of_the_answer(stub: ChatStub, teacher: OpenAICompatibleTeacher) -> None:
    stub.text = "<think>\nFrance... its capital\n</think>\n\nParis"
    assert (await teacher.answer(QUESTION, 50)).text == "Paris"


@pytest.mark.parametrize(
    ("form", "sent"), [("json_schema", "json_schema"), ("json_object", "json_object"), ("words", None)]
)
async def test_examples_come_in_the_form_that_the_server_can_take(
    stub: ChatStub, clock: Clock, form: OutputForm, sent: str | None
) -> None:
    body = json.dumps({"examples": ROWS})
    stub.text = body if form == "json_schema" else f"```json\n{body}\n```"
    teacher = make_teacher(stub, clock, form=form)
    made = await teacher.generate(Wish(category="mood", count=10))
    assert len(made.examples) == 10
    assert (made.examples[0].query, made.examples[0].category, made.examples[0].grader) == ("q0", "mood", "label")
    (request,) = stub.requests
    assert request.get("response_format", {}).get("type") == sent
    # Without a schema beside it, the request itself has to say the form.
    assert ("JSON schema" in request["messages"][0]["content"]) is (form != "json_schema")
    await teacher.close()


async def test_examples_in_another_form_are_a_named_error(stub: ChatStub, teacher: OpenAICompatibleTeacher) -> None:
    stub.text = "Sure! Here are your examples."
    with pytest.raises(TeacherError, match="not in the form"):
        await teacher.generate(Wish(category="mood", count=10))
