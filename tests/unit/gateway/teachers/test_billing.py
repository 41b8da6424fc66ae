"""What the ledger is told of calls that gave no answer: billed, perhaps billed, or surely not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from shammah_chassis.errors import TeacherError
from shammah_chassis.examples import Message
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.teachers.anthropic import STREAM_ABOVE_TOKENS, AnthropicTeacher
from shammah_gateway.teachers.base import Teacher, Wish
from shammah_gateway.teachers.fallback import FallbackTeacher
from shammah_gateway.teachers.openai_compatible import OpenAICompatibleTeacher
from support.chat_stub import ChatStub, serve_chat
from support.gateway import make_ledger
from support.guards import Clock, make_guard
from support.messages_stub import MessagesStub, serve_messages

QUESTION = [Message("user", "Capital of France?")]
LONG = STREAM_ABOVE_TOKENS + 1


@pytest.fixture
async def claude() -> AsyncIterator[MessagesStub]:
    async with serve_messages() as stub:
        yield stub


@pytest.fixture
async def chat() -> AsyncIterator[ChatStub]:
    async with serve_chat() as stub:
        yield stub


@pytest.fixture
async def both(claude: MessagesStub, chat: ChatStub) -> AsyncIterator[FallbackTeacher]:
    clock = Clock()
    guard = make_guard(clock)
    first = AnthropicTeacher(model="claude-sonnet-5-5", key=claude.key, base_url=claude.url, guard=guard)
    second = OpenAICompatibleTeacher(model="open-1", base_url=chat.url, guard=make_guard(clock, name="openai"))
    made = FallbackTeacher([first, second], seconds=20, clock=clock)
    yield made
    await made.close()


async def ask_claude_then_chat(both: FallbackTeacher, max_tokens: int = 50) -> tuple[Ledger, str]:
    ledger = make_ledger()
    told = await Teacher(both, ledger).answer(QUESTION, max_tokens, purpose="answer")
    return ledger, told.model


@pytest.mark.parametrize(("fault", "unknown"), [("500", 0), ("429", 0), ("drop", 1)])
async def test_a_retry_is_booked_once_and_what_may_have_been_billed_is_counted_as_unknown(
    both: FallbackTeacher, claude: MessagesStub, fault: str, unknown: int
) -> None:
    claude.faults = [fault]
    ledger, model = await ask_claude_then_chat(both)
    spent = ledger.summary().spent["answer"]
    assert (model, spent.calls, spent.input_tokens, spent.output_tokens) == ("claude-sonnet-5-5", 1, 12, 3)
    assert spent.unknown_calls == unknown


@pytest.mark.parametrize("fault", ["stream-drop", "stream-end", "stream-error"])
async def test_a_broken_stream_may_have_been_billed(both: FallbackTeacher, claude: MessagesStub, fault: str) -> None:
    claude.faults = [fault]
    ledger, _ = await ask_claude_then_chat(both, LONG)
    assert ledger.summary().spent["answer"].unknown_calls == 1


async def test_a_first_teacher_that_was_too_late_may_have_been_billed(
    both: FallbackTeacher, claude: MessagesStub
) -> None:
    await both.answer(QUESTION, 50)  # the SDK's import must not count
    claude.faults = ["hang"]
    both._seconds = 0.8
    ledger, model = await ask_claude_then_chat(both)
    assert model == "open-1"
    # The late one, and the one that answered: a model without a price.
    assert ledger.summary().spent["answer"].unknown_calls == 2


@pytest.mark.parametrize("finish", ["length", "content_filter", None])
async def test_an_answer_that_is_none_is_booked_with_its_tokens(chat: ChatStub, finish: str | None) -> None:
    chat.finish = finish
    teacher = OpenAICompatibleTeacher(model="claude-sonnet-5-5", base_url=chat.url, guard=make_guard(Clock()))
    ledger = make_ledger()
    with pytest.raises(TeacherError):
        await Teacher(teacher, ledger).answer(QUESTION, 50, purpose="answer")
    spent = ledger.summary().spent["answer"]
    # One without a finish reason was asked for twice.
    times = 1 if finish else 2
    assert (spent.input_tokens, spent.output_tokens, spent.unknown_calls) == (12 * times, 3 * times, 0)
    await teacher.close()


async def test_examples_that_can_not_be_read_are_booked_all_the_same(
    both: FallbackTeacher, claude: MessagesStub, chat: ChatStub
) -> None:
    claude.text = chat.text = "Sure! Here you are."
    ledger = make_ledger()
    with pytest.raises(TeacherError, match="no teacher answered"):
        await Teacher(both, ledger).generate(Wish(category="mood", count=10))
    assert ledger.summary().spent["teach"].output_tokens == 6
