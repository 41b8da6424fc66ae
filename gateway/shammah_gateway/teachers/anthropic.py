"""Claude as the teacher, by the official SDK. It is imported on first use: a gateway without it starts faster.

No sampling fields, no forced tool choice and no prefill (the API refuses them); structured output where a form is
needed. The SDK's own retries are off, `Guard` has ours. It knows no cascade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from shammah_chassis.errors import TeacherAuthError, TeacherError, TeacherRefusedError, TeacherTruncatedError
from shammah_chassis.examples import Message

from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage, merge_usage, read_usage
from shammah_gateway.teachers.base import GENERATE_TOKENS, Generation, TeacherAnswer, Wish, report_billed
from shammah_gateway.teachers.faults import (
    AttemptError,
    Fault,
    cut_off,
    lose_connection,
    read_event_fault,
    read_fault,
    run_late,
)
from shammah_gateway.teachers.guard import Guard, note_unseen
from shammah_gateway.teachers.wishes import GENERATE_SCHEMA, read_generation, write_wish

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

    Receive = Callable[[AsyncAnthropic, dict[str, Any]], Awaitable["_Reply"]]

# Named, never left to the environment: there ANTHROPIC_BASE_URL may well be this gateway itself.
DEFAULT_BASE_URL = "https://api.anthropic.com"
# Longer answers are streamed: the SDK refuses to wait in one piece for what may take over ten minutes.
STREAM_ABOVE_TOKENS = 16_000
WHOLE = ("end_turn", "stop_sequence")


@dataclass(slots=True)
class _Reply:
    """What arrived of an answer, in one piece or streamed."""

    text: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: Usage = UNKNOWN_USAGE


class AnthropicTeacher:
    """The `anthropic` teacher. `key` None leaves it to the SDK to find one in the environment."""

    def __init__(
        self, *, model: str, key: str | None, guard: Guard, base_url: str | None = None, name: str = "anthropic"
    ) -> None:
        self.name = name
        self.guard = guard
        self._model = model
        self._key = key
        self._base_url = base_url or DEFAULT_BASE_URL
        self._client: AsyncAnthropic | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that an answer may come from: for the price of a call before it is made."""
        return (self._model,)

    async def answer(
        self, messages: Sequence[Message], max_tokens: int, *, seconds: float | None = None
    ) -> TeacherAnswer:
        """As `TeacherPort.answer`; `seconds` bounds it further."""
        return await self._ask(messages, max_tokens, {}, seconds)

    async def generate(self, wish: Wish, *, seconds: float | None = None) -> Generation:
        """As `TeacherPort.generate`; TeacherError when the output is not in the form that was asked for."""
        form = {"output_config": {"format": {"type": "json_schema", "schema": GENERATE_SCHEMA}}}
        told = await self._ask([Message("user", write_wish(wish))], GENERATE_TOKENS, form, seconds)
        return read_generation(told, wish)

    def categories(self) -> None:
        """Return None: it can write examples of any category."""
        return

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _ask(
        self, messages: Sequence[Message], max_tokens: int, extra: Mapping[str, Any], seconds: float | None
    ) -> TeacherAnswer:
        client = await self._connect()
        request = self._write_request(messages, max_tokens, extra)
        receive = _receive_stream if max_tokens > STREAM_ABOVE_TOKENS else _receive_whole

        async def attempt() -> TeacherAnswer:
            with note_unseen(self._model):
                reply = await _call(receive, client, request)
            return _read_answer(reply)

        return await self.guard.run(attempt, seconds=seconds)

    def _write_request(self, messages: Sequence[Message], max_tokens: int, extra: Mapping[str, Any]) -> dict[str, Any]:
        system = "\n\n".join(turn.content for turn in messages if turn.role == "system")
        turns = [{"role": turn.role, "content": turn.content} for turn in messages if turn.role != "system"]
        request = {"model": self._model, "max_tokens": max_tokens, "messages": turns, **extra}
        return {**request, "system": system} if system else request

    async def _connect(self) -> AsyncAnthropic:
        if self._client is None:
            # The import takes seconds: off the loop, and not on the clock of an answer.
            anthropic = await asyncio.to_thread(__import__, "anthropic")
            self._client = anthropic.AsyncAnthropic(api_key=self._key, base_url=self._base_url, max_retries=0)
        return self._client


async def _call(receive: Receive, client: AsyncAnthropic, request: dict[str, Any]) -> _Reply:
    """Make one call; every way in which the SDK fails becomes an AttemptError."""
    import anthropic
    import httpx2

    try:
        return await receive(client, request)
    except TypeError as error:
        if "authentication" not in str(error):
            raise
        # This is how the SDK says that it has no credentials.
        raise TeacherAuthError(f"no key for the teacher: {error}") from error
    except (anthropic.APIError, httpx2.HTTPError) as error:
        raise AttemptError(_read_error(error)) from error
    except ValueError as error:
        # An event or a body that is no JSON: what stands before the API (a proxy) cut or replaced it.
        raise AttemptError(cut_off(f"the reply can't be read: {error}")) from error


async def _receive_whole(client: AsyncAnthropic, request: dict[str, Any]) -> _Reply:
    from anthropic.types import Message as ApiMessage

    message = await client.messages.create(**request)
    if not isinstance(message, ApiMessage) or message.content is None:
        raise AttemptError(Fault("server", "its reply is no message", 200, retry=True))
    text = "".join(block.text for block in message.content if block.type == "text")
    return _Reply(text, message.model, message.stop_reason, read_usage(_dump(message.usage)))


async def _receive_stream(client: AsyncAnthropic, request: dict[str, Any]) -> _Reply:
    """Read the events; a stream that ends early, without an error, leaves `stop_reason` None."""
    reply = _Reply(model=request["model"])
    started: dict[str, Any] = {}
    async with await client.messages.create(**request, stream=True) as events:
        async for event in events:
            if event.type == "message_start":
                reply.model = event.message.model
                started = _dump(event.message.usage)
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                reply.text += event.delta.text
            elif event.type == "message_delta":
                reply.stop_reason = event.delta.stop_reason
                reply.usage = merge_usage(started, _dump(event.usage))
    return reply


def _dump(usage: BaseModel | None) -> dict[str, Any]:
    return {} if usage is None else usage.model_dump(exclude_none=True)


def _read_answer(reply: _Reply) -> TeacherAnswer:
    """Return the answer, if it is a whole one.

    Raises:
        AttemptError: it was cut on its way. TeacherRefusedError, TeacherTruncatedError, TeacherError (empty).
    """
    stop = reply.stop_reason
    if stop not in WHOLE or not reply.text.strip():
        report_billed(reply.model, reply.usage)
    if stop is None:
        raise AttemptError(cut_off("it came without a stop reason"))
    if stop == "refusal":
        raise TeacherRefusedError("the teacher declined to answer")
    if stop not in WHOLE:
        raise TeacherTruncatedError(f"the teacher's answer is cut (stop reason {stop})")
    if not reply.text.strip():
        raise TeacherError("the teacher's answer is empty")
    return TeacherAnswer(reply.text, reply.model, stop, reply.usage)


def _read_error(error: Exception) -> Fault:
    """Return what an error of the SDK, or of the transport below it, says."""
    import anthropic
    import httpx2

    if isinstance(error, (anthropic.APITimeoutError, httpx2.TimeoutException)):
        return run_late("no answer in time")
    if isinstance(error, anthropic.APIStatusError):
        kind, message = _read_body(error.body)
        fault = read_fault(error.status_code, error.response.headers, message or error.message)
        # An error event inside of a stream comes with status 200.
        return fault or read_event_fault(kind, message)
    if isinstance(error, anthropic.APIConnectionError):
        return lose_connection(str(error.__cause__ or error), sent=not isinstance(error.__cause__, httpx2.ConnectError))
    if isinstance(error, httpx2.HTTPError):
        return cut_off(str(error) or type(error).__name__)
    return Fault("server", str(error), retry=True)


def _read_body(body: object) -> tuple[str, str]:
    """Return type and message of an error body; empty where it is none of the API's."""
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return "", ""
    return str(inner.get("type", "")), str(inner.get("message", ""))
