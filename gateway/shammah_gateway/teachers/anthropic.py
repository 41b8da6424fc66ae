"""Claude as the teacher, by the official SDK. It is imported on first use: a gateway without it starts faster.

No sampling fields, no forced tool choice and no prefill (the API refuses them); structured output where a form is
needed. The SDK's own retries are off: it would wait as long as a `retry-after` header says. It knows no cascade.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from shammah_chassis.errors import (
    TeacherAuthError,
    TeacherError,
    TeacherRefusedError,
    TeacherTimeoutError,
    TeacherTruncatedError,
)
from shammah_chassis.examples import GRADERS, Message

from shammah_gateway.teachers.base import Generation, OfferedExample, TeacherAnswer, Wish

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import Message as Reply

ATTEMPTS = 2
MAX_PAUSE_SECONDS = 2.0
GENERATE_TOKENS = 16_000
AUTH_STATUS = frozenset({401, 403})
RETRY_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
TIMEOUT_STATUS = frozenset({408, 504})
# What a caller may make: an example with tests needs more fields than a teacher is asked for.
_OFFERED_GRADERS = tuple(name for name in GRADERS if name not in ("unit_tests", "contains"))
GENERATE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["examples"],
    "properties": {
        "examples": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["query", "response", "grader"],
                "properties": {
                    "query": {"type": "string"},
                    "response": {"type": "string"},
                    "grader": {"type": "string", "enum": list(_OFFERED_GRADERS)},
                },
            },
        }
    },
}


class AnthropicTeacher:
    """The `anthropic` teacher.

    `key` None leaves it to the SDK to find one in the environment. `timeout` is for a whole answer, in seconds.
    """

    name = "anthropic"

    def __init__(
        self,
        *,
        model: str,
        key: str | None,
        base_url: str | None,
        timeout: float,
        pause_seconds: float = 0.5,
    ) -> None:
        self._model = model
        self._key = key
        self._base_url = base_url
        self._timeout = timeout
        self._pause = pause_seconds
        self._client: AsyncAnthropic | None = None

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        """As `TeacherPort.answer`."""
        reply = await self._create(messages, max_tokens, {})
        return _read_answer(reply)

    async def generate(self, wish: Wish) -> Generation:
        """As `TeacherPort.generate`; TeacherError when the output is not in the form that was asked for."""
        form = {"output_config": {"format": {"type": "json_schema", "schema": GENERATE_SCHEMA}}}
        told = _read_answer(await self._create([Message("user", _write_wish(wish))], GENERATE_TOKENS, form))
        try:
            rows = json.loads(told.text)["examples"][: wish.count]
            made = tuple(
                OfferedExample(
                    query=str(row["query"]),
                    response=str(row["response"]),
                    category=wish.category,
                    grader=str(row["grader"]),
                )
                for row in rows
            )
        except (ValueError, KeyError, TypeError) as error:
            raise TeacherError(f"the teacher's examples are not in the form that was asked for: {error}") from error
        return Generation(made, told.model, told.input_tokens, told.output_tokens)

    def categories(self) -> None:
        """Return None: it can write examples of any category."""
        return

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    async def _create(self, messages: Sequence[Message], max_tokens: int, extra: dict[str, Any]) -> Reply:
        client = await self._connect()
        system = "\n\n".join(turn.content for turn in messages if turn.role == "system")
        turns: list[Any] = [{"role": turn.role, "content": turn.content} for turn in messages if turn.role != "system"]
        if system:
            extra = {**extra, "system": system}

        async def call() -> Reply:
            reply: Reply = await client.messages.create(
                model=self._model, max_tokens=max_tokens, messages=turns, **extra
            )
            return reply

        try:
            async with asyncio.timeout(self._timeout):
                return await self._retry(call)
        except TimeoutError as error:
            raise TeacherTimeoutError(f"the teacher did not answer within {self._timeout:g} s") from error

    async def _retry(self, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """Try once more after a fault that may pass; our pause is short whatever the server asks for."""
        import anthropic
        import httpx2

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await call()
            except TypeError as error:
                # This is how the SDK says that it has no credentials; a real type error would name a field.
                raise TeacherAuthError(f"no key for the teacher: {error}") from error
            except (anthropic.APIError, httpx2.HTTPError) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise _name_error(error) from error
            await asyncio.sleep(min(self._pause * attempt, MAX_PAUSE_SECONDS))
        raise TeacherError("the teacher was not asked")

    async def _connect(self) -> AsyncAnthropic:
        if self._client is None:
            # The import takes seconds: off the loop.
            anthropic = await asyncio.to_thread(__import__, "anthropic")
            self._client = anthropic.AsyncAnthropic(
                api_key=self._key, base_url=self._base_url, max_retries=0, timeout=self._timeout
            )
        return self._client


def _read_answer(reply: Reply) -> TeacherAnswer:
    """Return the text of a reply; TeacherRefusedError or TeacherTruncatedError when it is no whole answer."""
    if reply.stop_reason == "refusal":
        raise TeacherRefusedError("the teacher declined to answer")
    if reply.stop_reason not in ("end_turn", "stop_sequence"):
        raise TeacherTruncatedError(f"the teacher's answer is cut (stop reason {reply.stop_reason or 'missing'})")
    text = "".join(block.text for block in reply.content if block.type == "text")
    if not text.strip():
        raise TeacherError("the teacher's answer is empty")
    usage = reply.usage
    return TeacherAnswer(
        text, reply.model, reply.stop_reason, usage.input_tokens if usage else 0, usage.output_tokens if usage else 0
    )


def _may_pass(error: Exception) -> bool:
    """Say whether another try makes sense: rate limits, overload, a broken connection; not a timeout."""
    import anthropic

    if isinstance(error, anthropic.APITimeoutError):
        return False
    if isinstance(error, anthropic.APIStatusError):
        return error.status_code in RETRY_STATUS
    return True


def _name_error(error: Exception) -> TeacherError:
    import anthropic

    if isinstance(error, anthropic.APITimeoutError):
        return TeacherTimeoutError("the teacher did not answer in time")
    if not isinstance(error, anthropic.APIStatusError):
        return TeacherError(f"the teacher can't be reached: {error}")
    if error.status_code in AUTH_STATUS:
        return TeacherAuthError(f"the teacher refused our key (HTTP {error.status_code})")
    if error.status_code in TIMEOUT_STATUS:
        return TeacherTimeoutError(f"the teacher was too late (HTTP {error.status_code})")
    return TeacherError(f"the teacher failed (HTTP {error.status_code}): {error.message}")


def _write_wish(wish: Wish) -> str:
    """Return the request for new examples."""
    samples = [{"query": row.query, "response": row.response, "grader": row.grader} for row in wish.samples]
    lines = [
        f"Write {wish.count} new training examples for the category {wish.category!r} of a small language model.",
        f"Difficulty: {wish.difficulty}.",
        *([f"Focus on: {wish.focus}."] if wish.focus else []),
        "Each example is a query as a user would write it and the one right response, in the form of the samples.",
        "Vary the wording. Keep responses short. The grader says how a response is compared with yours:",
        "exact or label (same words), numeric (same number), json (equal JSON), similarity or judge (free text).",
        *(["Samples:", json.dumps(samples, ensure_ascii=False)] if samples else []),
    ]
    return "\n".join(lines)
