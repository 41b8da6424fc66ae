"""Claude as the teacher, by the official SDK. It is imported on first use: a gateway without it starts faster.

No sampling fields, no forced tool choice and no prefill (the API refuses them); structured output where a form is
needed. The SDK's own retries are off, `Guard` has ours. It knows no cascade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shammah_chassis.examples import Message

from shammah_gateway.teachers.batch_desk import BatchPolicy
from shammah_gateway.teachers.guard import Guard, note_unseen
from shammah_gateway.teachers.judging import JUDGE_FORM, read_judgement, write_judgement
from shammah_gateway.teachers.message_batches import MessageBatches
from shammah_gateway.teachers.ports import JUDGE_TOKENS, Form, Generation, Judgement, TeacherAnswer, Wish
from shammah_gateway.teachers.sdk import call_sdk, read_answer, receive_stream, receive_whole
from shammah_gateway.teachers.wishes import GENERATE_FORM, read_generation, write_wish

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

# Named, never left to the environment: there ANTHROPIC_BASE_URL may well be this gateway itself.
DEFAULT_BASE_URL = "https://api.anthropic.com"
# Longer answers are streamed: the SDK refuses to wait in one piece for what may take over ten minutes.
STREAM_ABOVE_TOKENS = 16_000


class AnthropicTeacher:
    """The `anthropic` teacher. `key` None leaves it to the SDK to find one in the environment."""

    def __init__(
        self,
        *,
        model: str,
        key: str | None,
        guard: Guard,
        base_url: str | None = None,
        name: str = "anthropic",
        batches: BatchPolicy | None = None,
    ) -> None:
        self.name = name
        self.guard = guard
        self._model = model
        self._key = key
        self._base_url = base_url or DEFAULT_BASE_URL
        self._client: AsyncAnthropic | None = None
        self.batches = MessageBatches(
            name, guard=guard, policy=batches or BatchPolicy(), connect=self._connect, write=self._write_generate
        )

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
        told = await self.fill(write_wish(wish), GENERATE_FORM, wish.max_tokens, seconds=seconds)
        return read_generation(told, wish)

    async def judge(self, query: str, reference: str, response: str, *, seconds: float | None = None) -> Judgement:
        """As `JudgingPort.judge`; TeacherError when the verdict is not in the form that was asked for."""
        prompt = write_judgement(query, reference, response)
        return read_judgement(await self.fill(prompt, JUDGE_FORM, JUDGE_TOKENS, seconds=seconds))

    async def fill(self, prompt: str, form: Form, max_tokens: int, *, seconds: float | None = None) -> TeacherAnswer:
        """As `FormPort.fill`."""
        return await self._ask([Message("user", prompt)], max_tokens, _write_form(form), seconds)

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
        receive = receive_stream if max_tokens > STREAM_ABOVE_TOKENS else receive_whole

        async def attempt() -> TeacherAnswer:
            with note_unseen(self._model):
                reply = await call_sdk(lambda: receive(client, request))
            return read_answer(reply)

        return await self.guard.run(attempt, seconds=seconds)

    def _write_request(self, messages: Sequence[Message], max_tokens: int, extra: Mapping[str, Any]) -> dict[str, Any]:
        system = "\n\n".join(turn.content for turn in messages if turn.role == "system")
        turns = [{"role": turn.role, "content": turn.content} for turn in messages if turn.role != "system"]
        request = {"model": self._model, "max_tokens": max_tokens, "messages": turns, **extra}
        return {**request, "system": system} if system else request

    def _write_generate(self, wish: Wish) -> dict[str, Any]:
        return self._write_request([Message("user", write_wish(wish))], wish.max_tokens, _write_form(GENERATE_FORM))

    async def _connect(self) -> AsyncAnthropic:
        if self._client is None:
            # The import takes seconds: off the loop, and not on the clock of an answer.
            anthropic = await asyncio.to_thread(__import__, "anthropic")
            self._client = anthropic.AsyncAnthropic(api_key=self._key, base_url=self._base_url, max_retries=0)
        return self._client


def _write_form(form: Form) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": form.schema}}}
