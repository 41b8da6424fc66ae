"""An open-weight model behind an OpenAI-style address (vLLM, llama.cpp, Ollama, ...) as the teacher.

It sends what all such servers know: model, messages, max_tokens and, where a form is needed, `response_format`. It
knows no cascade.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import aiohttp
from shammah_chassis.errors import TeacherError, TeacherRefusedError, TeacherTruncatedError
from shammah_chassis.examples import Message

from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage
from shammah_gateway.teachers.faults import AttemptError, Fault, cut_off, lose_connection, read_fault, run_late
from shammah_gateway.teachers.guard import Guard, note_unseen
from shammah_gateway.teachers.json_text import write_schema
from shammah_gateway.teachers.judging import JUDGE_FORM, read_judgement, write_judgement
from shammah_gateway.teachers.ports import (
    JUDGE_TOKENS,
    Form,
    Generation,
    Judgement,
    TeacherAnswer,
    Wish,
    report_billed,
)
from shammah_gateway.teachers.wishes import GENERATE_FORM, read_generation, write_wish

# How a server is told the form of its output: by a schema, "some JSON", or only in words.
OutputForm = Literal["json_schema", "json_object", "words"]
DETAIL_LIMIT = 300
_THOUGHT = ("<think>", "</think>")


class OpenAICompatibleTeacher:
    """The `openai` teacher. `base_url` is what stands before `/chat/completions`, e.g. `http://host:8000/v1`."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str,
        guard: Guard,
        key: str | None = None,
        form: OutputForm = "json_schema",
        name: str = "openai",
    ) -> None:
        self.name = name
        self.guard = guard
        self._model = model
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = key
        self._form = form
        self._session: aiohttp.ClientSession | None = None

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
        """As `FormPort.fill`; a server that can't be given a schema is told it in the prompt."""
        text = prompt if self._form == "json_schema" else f"{prompt}\n{write_schema(form)}"
        return await self._ask([Message("user", text)], max_tokens, _write_form(self._form, form), seconds)

    def categories(self) -> None:
        """Return None: it can write examples of any category."""
        return

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self, messages: Sequence[Message], max_tokens: int, extra: Mapping[str, Any], seconds: float | None
    ) -> TeacherAnswer:
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        request = {"model": self._model, "messages": turns, "max_tokens": max_tokens, **extra}

        async def attempt() -> TeacherAnswer:
            with note_unseen(self._model):
                reply = await self._post(request)
            return _read_answer(reply, self._model)

        return await self.guard.run(attempt, seconds=seconds)

    async def _post(self, request: Mapping[str, Any]) -> object:
        """Return the JSON of a reply; AttemptError for each way of not getting one."""
        if self._session is None:
            # The guard has the deadline; a limit of the client beside it would only hide which one ran out.
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with self._session.post(self._url, json=request, headers=headers) as reply:
                body = await reply.read()
                status, told = reply.status, reply.headers
        except aiohttp.ClientPayloadError as error:
            raise AttemptError(cut_off(str(error))) from error
        except aiohttp.ServerTimeoutError as error:
            raise AttemptError(run_late(str(error))) from error
        except aiohttp.InvalidURL as error:
            raise AttemptError(Fault("invalid", f"its address {self._url!r} is no URL")) from error
        except aiohttp.ClientError as error:
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise AttemptError(lose_connection(str(error) or type(error).__name__, sent=sent)) from error
        fault = read_fault(status, told, _read_detail(body)) if status >= 400 else None
        if fault is not None:
            raise AttemptError(fault)
        try:
            return json.loads(body)
        except ValueError as error:
            raise AttemptError(cut_off(f"its reply is no JSON: {error}")) from error


def _write_form(how: OutputForm, form: Form) -> dict[str, Any]:
    if how == "json_schema":
        schema = {"name": form.name, "strict": True, "schema": form.schema}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": {"type": "json_object"}} if how == "json_object" else {}


def _read_answer(body: object, model: str) -> TeacherAnswer:
    """Return the answer of a `chat.completion`, if it is a whole one.

    Raises:
        AttemptError: it is none, or was cut on its way. TeacherRefusedError, TeacherTruncatedError, TeacherError.
    """
    try:
        reply = cast(dict[str, Any], body)
        choice = reply["choices"][0]
        message, stop = choice["message"], choice.get("finish_reason")
        text = str(message.get("content") or "")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise AttemptError(Fault("server", "its reply is no chat completion", 200, retry=True)) from error
    usage = _read_usage(reply.get("usage"))
    answerer = str(reply.get("model") or model)
    try:
        return TeacherAnswer(_check_whole(message, stop, text), answerer, "end_turn", usage)
    except (AttemptError, TeacherError):
        report_billed(answerer, usage)
        raise


def _check_whole(message: Mapping[str, Any], stop: object, text: str) -> str:
    """Return the text of a choice without its thoughts; raises as `_read_answer` when it is no whole answer."""
    if stop is None:
        raise AttemptError(cut_off("it came without a finish reason"))
    if stop == "content_filter" or message.get("refusal"):
        raise TeacherRefusedError("the teacher declined to answer")
    if stop != "stop":
        raise TeacherTruncatedError(f"the teacher's answer is cut (finish reason {stop})")
    text = _drop_thought(text)
    if not text.strip():
        raise TeacherError("the teacher's answer is empty")
    return text


def _read_usage(raw: object) -> Usage:
    """Return the usage of a completion. `prompt_tokens` counts cached tokens too, so they are taken off."""
    if not isinstance(raw, dict) or not isinstance(raw.get("prompt_tokens"), int):
        return UNKNOWN_USAGE
    details = raw.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    cached = min(cached, raw["prompt_tokens"]) if isinstance(cached, int) else 0
    written = raw.get("completion_tokens")
    return Usage(
        input_tokens=raw["prompt_tokens"] - cached,
        output_tokens=written if isinstance(written, int) else 0,
        cache_read=cached,
    )


def _drop_thought(text: str) -> str:
    """Return the text after a leading block of thought, which servers without a parser for it leave in the answer."""
    begin, end = _THOUGHT
    if not text.lstrip().startswith(begin):
        return text
    _, closed, rest = text.partition(end)
    if not closed:
        raise TeacherTruncatedError("the teacher's answer is cut inside of its thoughts")
    return rest.lstrip()


def _read_detail(body: bytes) -> str:
    """Return the message of an error body: `error.message`, `message` or `detail`, else its first characters."""
    text = body.decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except ValueError:
        return text[:DETAIL_LIMIT].strip()
    if isinstance(told, dict):
        inner = told.get("error", told)
        told = inner.get("message") or inner.get("detail") or inner if isinstance(inner, dict) else inner
    return str(told)[:DETAIL_LIMIT]
