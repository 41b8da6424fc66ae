"""The Messages API as plain values: the request as far as this gateway must read it, and the answers it writes itself.

Shapes: `anthropic` SDK 2.12 and the API's documentation of version 2026-10-21. It knows no cascade and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import MAX_QUERY_CHARS, Message

from shammah_gateway.http.json_text import HALF_PAIR, is_whole_text, write_json
from shammah_gateway.values import Answer

VERSIONS = ("2023-06-01", "2026-10-21")
VERSION_HEADER = "anthropic-version"
# Fields that change nothing of what the student would say; anything else is for the teacher only.
_NEUTRAL = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stream", "metadata", "service_tier", "cache_control"),
        *("inference_geo", "user_profile_id", "workspace_id", "diagnostics", "speed", "stop_sequences", "temperature"),
    }
)
_EMPTY: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "thinking": ({"type": "disabled"},),
    "tool_choice": ({"type": "auto"}, {"type": "none"}),
    "output_config": ({},),
    "mcp_servers": ([],),
    "top_p": (1, 1.0),
}
_ROLES = ("user", "assistant", "system")
# Letters of one text delta: a client shows progress, and few events are cheap.
_PIECE_CHARS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRequest:
    """A request. `beyond` names what only a teacher can do with it, in the words of the protocol; () when nothing.

    `messages` has its text turns, system first; with `beyond` it is not the whole of it.
    """

    model: str
    max_tokens: int
    stream: bool
    messages: tuple[Message, ...]
    beyond: tuple[str, ...]
    temperature: float
    stop_sequences: tuple[str, ...]
    threaded: bool


def check_version(version: str) -> None:
    """Raise InvalidInputError unless this version of the API is spoken here."""
    if version not in VERSIONS:
        told = (
            f"{VERSION_HEADER}: {version} is not a valid version"
            if version
            else f"{VERSION_HEADER}: header is required"
        )
        raise InvalidInputError(f"{told}; allowed: {', '.join(VERSIONS)}")


def read_model_name(raw: Mapping[str, Any]) -> str:
    """Return the model of a request; InvalidInputError when there is none."""
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidInputError("model: Field required" if model is None else "model: Input should be a valid string")
    return model


def read_messages(raw: Mapping[str, Any]) -> MessagesRequest:
    """Return a request.

    Raises:
        InvalidInputError: what the API itself refuses in every version: model, max_tokens or messages missing or wrong.
    """
    model = read_model_name(raw)
    max_tokens = raw.get("max_tokens")
    if max_tokens is None:
        raise InvalidInputError("max_tokens: Field required")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise InvalidInputError("max_tokens: Input should be a whole number, 1 or more")
    threaded = raw.get("thread") is not None
    beyond = [name for name in raw if name not in _NEUTRAL and raw[name] not in (None, *_EMPTY.get(name, ()))]
    turns = [*_read_system(raw.get("system"), beyond), *_read_turns(raw.get("messages"), beyond)]
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        beyond.append("a last turn without text of the user")
    if sum(len(turn.content) for turn in turns) > MAX_QUERY_CHARS:
        beyond.append(f"more than {MAX_QUERY_CHARS} characters")
    if not all(is_whole_text(turn.content) for turn in turns):
        beyond.append(HALF_PAIR)
    return MessagesRequest(
        model=model,
        max_tokens=max_tokens,
        stream=raw.get("stream") is True,
        messages=tuple(turns),
        beyond=tuple(dict.fromkeys(beyond)),
        temperature=_read_temperature(raw.get("temperature")),
        stop_sequences=_read_stops(raw.get("stop_sequences")),
        threaded=threaded,
    )


def write_message(answer: Answer, request: MessagesRequest) -> dict[str, Any]:
    """Return the message object of an answer that was not forwarded by bytes."""
    text, stop_reason, stop_sequence = _cut_at_stop(answer, request.stop_sequences)
    return {
        "id": f"msg_{answer.query_id}",
        "type": "message",
        "role": "assistant",
        "model": answer.teacher_model or request.model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": {**_write_prompt_usage(answer), "output_tokens": answer.output_tokens},
    }


def write_events(answer: Answer, request: MessagesRequest) -> Iterator[bytes]:
    """Yield the same answer as the events of a stream; each has its `event:` line, which clients go by."""
    message = write_message(answer, request)
    usage = {**_write_prompt_usage(answer), "output_tokens": min(1, answer.output_tokens)}
    yield _event(
        "message_start", message={**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    )
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _event("ping")
    text = message["content"][0]["text"]
    for at in range(0, len(text), _PIECE_CHARS):
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text[at : at + _PIECE_CHARS]})
    yield _event("content_block_stop", index=0)
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield _event("message_delta", delta=ended, usage=message["usage"])
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:  # noqa: ANN401
    return b"event: " + kind.encode() + b"\ndata: " + write_json({"type": kind, **fields}) + b"\n\n"


def _write_prompt_usage(answer: Answer) -> dict[str, int]:
    return {
        "input_tokens": answer.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def _cut_at_stop(answer: Answer, stops: Sequence[str]) -> tuple[str, str, str | None]:
    """Return text, stop reason and stop sequence: the student knows no stop sequences, so its text is cut here."""
    found = [(at, stop) for stop in stops if (at := answer.text.find(stop)) >= 0]
    if not found:
        return answer.text, answer.stop_reason, None
    at, stop = min(found)
    return answer.text[:at], "stop_sequence", stop


def _read_system(system: object, beyond: list[str]) -> list[Message]:
    if system is None or system == "" or system == []:
        return []
    return [Message("system", _read_content(system, "system", beyond))]


def _read_turns(messages: object, beyond: list[str]) -> list[Message]:
    if messages is None:
        raise InvalidInputError("messages: Field required")
    if not isinstance(messages, list):
        raise InvalidInputError("messages: Input should be a valid list")
    if not messages:
        raise InvalidInputError("messages: at least one message is required")
    turns = []
    for index, turn in enumerate(messages):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in _ROLES:
            raise InvalidInputError(f"messages.{index}.role: allowed: {', '.join(_ROLES)}")
        if "content" not in turn:
            raise InvalidInputError(f"messages.{index}.content: Field required")
        turns.append(Message(role, _read_content(turn["content"], f"messages.{index}.content", beyond)))
    return turns


def _read_content(content: object, where: str, beyond: list[str]) -> str:
    """Return the text of a content; blocks that are no text are named in `beyond`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInputError(f"{where}: Input should be a valid string or list")
    texts = []
    for index, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str):
            raise InvalidInputError(f"{where}.{index}.type: Field required")
        if kind != "text":
            beyond.append(f"{kind} blocks")
            continue
        if not isinstance(block.get("text"), str):
            raise InvalidInputError(f"{where}.{index}.text: Field required")
        if block.get("citations"):
            beyond.append("citations")
        texts.append(block["text"])
    return "\n\n".join(texts)


def _read_temperature(value: object) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= 1.0:
        raise InvalidInputError("temperature: Input should be a number from 0 to 1")
    return float(value)


def _read_stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(stop, str) for stop in value):
        raise InvalidInputError("stop_sequences: Input should be a list of strings")
    return tuple(stop for stop in value if stop)
