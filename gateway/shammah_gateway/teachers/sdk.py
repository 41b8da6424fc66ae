"""One call of the Messages API by the official SDK: what arrives, and every way in which it fails, in our words.

The SDK is imported on first use. It knows no teacher, no retry and no money.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from shammah_chassis.errors import TeacherAuthError, TeacherError, TeacherRefusedError, TeacherTruncatedError

from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage, merge_usage, read_usage
from shammah_gateway.teachers.faults import (
    AttemptError,
    Fault,
    cut_off,
    lose_connection,
    read_event_fault,
    read_fault,
    run_late,
)
from shammah_gateway.teachers.ports import TeacherAnswer, report_billed

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import Message as ApiMessage

Got = TypeVar("Got")
WHOLE = ("end_turn", "stop_sequence")


@dataclass(slots=True)
class Reply:
    """What arrived of an answer, in one piece or streamed."""

    text: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: Usage = UNKNOWN_USAGE


async def call_sdk(call: Callable[[], Awaitable[Got]]) -> Got:
    """Make one call; every way in which the SDK fails becomes an AttemptError."""
    import anthropic
    import httpx2

    try:
        return await call()
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


async def receive_whole(client: AsyncAnthropic, request: dict[str, Any]) -> Reply:
    """Ask for an answer in one piece."""
    from anthropic.types import Message as ApiMessage

    message = await client.messages.create(**request)
    if not isinstance(message, ApiMessage) or message.content is None:
        raise AttemptError(Fault("server", "its reply is no message", 200, retry=True))
    return read_message(message)


def read_message(message: ApiMessage) -> Reply:
    """Return what a whole message says."""
    text = "".join(block.text for block in message.content if block.type == "text")
    return Reply(text, message.model, message.stop_reason, read_usage(_dump(message.usage)))


async def receive_stream(client: AsyncAnthropic, request: dict[str, Any]) -> Reply:
    """Read the events; a stream that ends early, without an error, leaves `stop_reason` None."""
    reply = Reply(model=request["model"])
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


def read_answer(reply: Reply) -> TeacherAnswer:
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
