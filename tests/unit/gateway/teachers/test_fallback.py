"""Several teachers behind one: the real clients against servers that fail, and plain ones where only order matters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from shammah_chassis.errors import (
    NotFoundError,
    TeacherAuthError,
    TeacherError,
    TeacherRefusedError,
    TeacherTruncatedError,
)
from shammah_chassis.examples import Message
from shammah_gateway.teachers.anthropic import AnthropicTeacher
from shammah_gateway.teachers.base import TeacherAnswer, Wish
from shammah_gateway.teachers.breaker import BreakerLimits
from shammah_gateway.teachers.fallback import FallbackTeacher
from shammah_gateway.teachers.openai_compatible import OpenAICompatibleTeacher
from shammah_gateway.teachers.recorded import RecordedTeacher
from shammah_gateway.teachers.retry import RetryPolicy
from support.chat_stub import ChatStub, serve_chat
from support.gateway import Bench, PlainTeacher, ask
from support.guards import Clock, make_guard
from support.messages_stub import MessagesStub, serve_messages

QUESTION = [Message("user", "Capital of France?")]
LONG = 20_000


@asynccontextmanager
async def serve_both(
    clock: Clock, *, failures: int = 5
) -> AsyncIterator[tuple[MessagesStub, ChatStub, FallbackTeacher]]:
    """Claude first, an open-weight model second."""
    async with serve_messages() as claude, serve_chat() as chat:
        chat.text = "Paris, says the second"
        limits = BreakerLimits(failures=failures)
        first = AnthropicTeacher(
            model="claude-sonnet-5-5",
            key=claude.key,
            base_url=claude.url,
            guard=make_guard(clock, limits=limits, policy=RetryPolicy(skip_long_waits=True)),
        )
        second = OpenAICompatibleTeacher(model="open-1", base_url=chat.url, guard=make_guard(clock, name="openai"))
        both = FallbackTeacher([first, second], seconds=20, clock=clock)
        yield claude, chat, both
        await both.close()


async def test_the_first_answers_while_it_can() -> None:
    async with serve_both(Clock()) as (_, chat, both):
        told = await both.answer(QUESTION, 50)
        assert (told.text, told.teacher, told.passed_over) == ("Paris", "anthropic", ())
        assert chat.requests == []
        assert both.models == ("claude-sonnet-5-5", "open-1")


@pytest.mark.parametrize("fault", ["429", "500", "529", "drop", "401", "402"])
async def test_the_second_answers_when_the_first_fails_and_the_answer_says_so(fault: str) -> None:
    clock = Clock()
    async with serve_both(clock) as (claude, _, both):
        claude.faults = [fault, fault]
        told = await both.answer(QUESTION, 50)
    assert (told.text, told.teacher, told.model) == ("Paris, says the second", "openai", "open-1")
    ((name, reason),) = told.passed_over
    assert name == "anthropic" and reason
    # 429 and 529 asked for 300 s: with another teacher there they are not waited for at all.
    assert clock.slept == ([0.5] if fault in ("500", "drop") else [])


@pytest.mark.parametrize("fault", ["stream-drop", "stream-end", "stream-error"])
async def test_a_stream_that_breaks_is_answered_whole_by_the_second(fault: str) -> None:
    async with serve_both(Clock()) as (claude, _, both):
        claude.faults = [fault, fault]
        assert (await both.answer(QUESTION, LONG)).teacher == "openai"


async def test_a_refusal_is_final() -> None:
    async with serve_both(Clock()) as (claude, chat, both):
        claude.stop_reason = "refusal"
        with pytest.raises(TeacherRefusedError):
            await both.answer(QUESTION, 50)
        assert chat.requests == []


async def test_an_answer_at_its_own_limit_is_final() -> None:
    async with serve_both(Clock()) as (claude, chat, both):
        claude.stop_reason = "max_tokens"
        with pytest.raises(TeacherTruncatedError):
            await both.answer(QUESTION, 50)
        assert chat.requests == []


async def test_a_teacher_that_is_left_alone_costs_no_call() -> None:
    clock = Clock()
    async with serve_both(clock, failures=2) as (claude, _, both):
        claude.faults = ["500"] * 9
        await both.answer(QUESTION, 50)
        asked = len(claude.requests)
        told = await both.answer(QUESTION, 50)
        assert len(claude.requests) == asked == 2
        assert "left alone" in told.passed_over[0][1]
        first, second = both.states()
        assert (first.name, first.state, first.answered, first.failed) == ("anthropic", "open", 0, 2)
        assert first.detail.startswith("answered 0, failed 2; 2 failures in a row")
        assert "2 failures in a row" in first.reason and "left alone" in first.last_error
        assert (second.name, second.state, second.answered, second.reason) == ("openai", "closed", 2, "")
        claude.faults = []
        clock.now += 15
        assert (await both.answer(QUESTION, 50)).teacher == "anthropic"
        assert both.states()[0].last_error == ""


async def test_a_first_teacher_that_hangs_leaves_time_for_the_second() -> None:
    async with serve_both(Clock()) as (claude, _, both):
        claude.faults = ["401"]
        await both.answer(QUESTION, 50)  # the SDK's import must not count
        claude.faults = ["hang"]
        both._seconds = 0.8
        told = await both.answer(QUESTION, 50)
        assert told.teacher == "openai"
        assert "0.4 s" in told.passed_over[0][1]


async def test_when_all_fail_the_error_names_each() -> None:
    first = PlainTeacher(error=TeacherAuthError("bad key"), name="one")
    second = PlainTeacher(error=TeacherError("down", retry_after_seconds=7), name="two")
    with pytest.raises(TeacherError, match="one: bad key; two: down") as caught:
        await FallbackTeacher([first, second], seconds=1).answer(QUESTION, 50)
    assert (type(caught.value), caught.value.retry_after_seconds) == (TeacherError, 7)


async def test_a_common_kind_of_failure_is_kept() -> None:
    ports = [PlainTeacher(error=TeacherAuthError("bad key"), name=name) for name in ("one", "two")]
    with pytest.raises(TeacherAuthError):
        await FallbackTeacher(ports, seconds=1).answer(QUESTION, 50)


async def test_one_teacher_alone_raises_its_own_error() -> None:
    error = TeacherTruncatedError("cut")
    with pytest.raises(TeacherTruncatedError) as caught:
        await FallbackTeacher([PlainTeacher(error=error)], seconds=1).answer(QUESTION, 50)
    assert caught.value is error


async def test_examples_come_from_the_first_that_can_make_the_category() -> None:
    async with serve_chat() as chat:
        chat.text = '{"examples": [{"query": "q", "response": "r", "grader": "label"}]}'
        recorded = RecordedTeacher((), ())
        openai = OpenAICompatibleTeacher(model="open-1", base_url=chat.url, guard=make_guard(Clock(), name="openai"))
        both = FallbackTeacher([recorded, openai], seconds=5)
        assert both.categories() is None
        made = await both.generate(Wish(category="mood", count=1))
        assert [row.query for row in made.examples] == ["q"]
        await both.close()
    alone = FallbackTeacher([recorded], seconds=5)
    assert alone.categories() == frozenset()
    with pytest.raises(NotFoundError):
        await alone.generate(Wish(category="mood", count=1))


async def test_what_is_no_teachers_error_is_not_hidden() -> None:
    class Broken(PlainTeacher):
        async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await FallbackTeacher([Broken(), PlainTeacher(name="two")], seconds=1).answer(QUESTION, 50)


async def test_the_example_names_the_teacher_that_answered() -> None:
    first = PlainTeacher(error=TeacherError("down"), name="one")
    both = FallbackTeacher([first, PlainTeacher(name="two")], seconds=1)
    bench = Bench(no_release=True, teacher=both)  # type: ignore[arg-type]
    await bench.cascade.ask(ask())
    await bench.learner.wait_idle(5)
    (example,) = bench.sink.examples
    assert example.provenance.teacher == "two"
