"""The request of OpenAI's chat completions as plain values, checked where this gateway must read it.

It knows the shape of that protocol only: nothing of Claude, the cascade or HTTP. Fields that it does not read stay in
`ChatRequest.raw`, for an upstream that speaks the same protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Message

from shammah_gateway.http.json_text import HALF_PAIR, is_whole_text

# The fields of the API that can be honoured, or left out without changing what the caller gets back.
HONOURED = frozenset(
    {
        *("model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools"),
        *("tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "n", "user", "temperature"),
        *("safety_identifier", "metadata", "store", "service_tier", "prediction", "verbosity", "prompt_cache_key"),
        *("prompt_cache_retention", "prompt_cache_options", "top_p", "frequency_penalty", "presence_penalty", "seed"),
        *("logprobs", "modalities"),
    }
)
# Sampling: the student is certified for greedy text only, and Claude refuses these fields.
SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "temperature": (None, 0),
    "top_p": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "seed": (None,),
}
_RANGES = {"temperature": (0.0, 2.0), "top_p": (0.0, 1.0), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2)}
_ROLES = ("system", "developer", "user", "assistant", "tool")
_PARTS = {
    "system": ("text",),
    "developer": ("text",),
    "user": ("text", "image_url", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text",),
}
MAX_STOPS = 4


class ChatInputError(InvalidInputError):
    """A chat request that can't be answered; `param` names the field, as the protocol's clients expect."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A checked request.

    `raw` is the body as it came; `max_tokens` 0 means that the caller gave none; `beyond_text` names what only a
    teacher can do ("tools", "images", ...), `uncertified` what the student could do without a promise.
    """

    raw: Mapping[str, Any]
    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool
    include_usage: bool
    max_tokens: int
    stop: tuple[str, ...]
    beyond_text: tuple[str, ...]
    uncertified: tuple[str, ...]

    @property
    def temperature(self) -> float:
        """What the caller asked for; 0 when it said nothing: then it does not care, and greedy is allowed."""
        return float(self.raw.get("temperature") or 0.0)

    @property
    def sampling(self) -> tuple[str, ...]:
        """The sampling fields that are set and would change the answer."""
        return tuple(name for name in SAMPLING if self.raw.get(name) not in _NEUTRAL[name])


def read_chat(body: bytes) -> ChatRequest:
    """Read and check the body of a request.

    Raises:
        ChatInputError: no JSON object, a missing or wrong field, a part or role that is not known.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ChatInputError(f"the body is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ChatInputError("the body must be a JSON object")
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        raise ChatInputError("you must provide a model, a text that is not empty", param="model")
    messages = _check_messages(raw.get("messages"))
    stream = _read_flag(raw, "stream")
    options = _read_object(raw.get("stream_options"), "stream_options")
    if options and not stream:
        raise ChatInputError("stream_options is only allowed with stream: true", param="stream_options")
    _check_numbers(raw)
    return ChatRequest(
        raw=raw,
        model=model,
        messages=messages,
        stream=stream,
        include_usage=_read_flag(options, "include_usage", "stream_options."),
        max_tokens=_read_count(raw, "max_completion_tokens") or _read_count(raw, "max_tokens"),
        stop=_read_stop(raw.get("stop")),
        beyond_text=_find_beyond_text(raw, messages),
        uncertified=_find_uncertified(raw),
    )


def check_supported(chat: ChatRequest) -> None:
    """Refuse what neither the student nor Claude can do, rather than answer something else.

    Raises:
        ChatInputError: a field that is not known, more than one choice, log-probabilities, audio.
    """
    raw = chat.raw
    if raw.get("n") not in (None, 1):
        raise ChatInputError(f"n is {raw['n']}; allowed: 1", param="n")
    if raw.get("logprobs"):
        raise ChatInputError("logprobs are not supported; leave logprobs out or send false", param="logprobs")
    if raw.get("modalities") not in (None, ["text"]):
        raise ChatInputError('only modalities ["text"] is supported', param="modalities")
    unknown = sorted(name for name, value in raw.items() if name not in HONOURED and value is not None)
    if unknown:
        raise ChatInputError(f"unrecognized or unsupported request argument: {unknown[0]}", param=unknown[0])


def read_text_turns(chat: ChatRequest) -> tuple[Message, ...]:
    """Return the turns for the student, in the words of the product: developer is system, parts are joined.

    Raises:
        ChatInputError: the request has more than text (see `beyond_text`).
    """
    turns = []
    for index, turn in enumerate(chat.messages):
        role = "system" if turn["role"] == "developer" else turn["role"]
        if role == "tool" or turn.get("tool_calls"):
            raise ChatInputError("the local model knows no tools", param=f"messages[{index}]")
        turns.append(Message(role, text_of(turn.get("content"))))
    return tuple(turns)


def read_opening(chat: ChatRequest) -> tuple[Message, ...]:
    """Return the turns up to the first of the user, which name a conversation; parts that are no text are left out."""
    turns = []
    for turn in chat.messages:
        role = "system" if turn["role"] == "developer" else turn["role"]
        turns.append(Message(role, text_of(turn.get("content"))))
        if role == "user":
            break
    return tuple(turns)


def text_of(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    """Return the text of a content: itself, or its text parts joined."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in content)


def _check_messages(messages: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - what a stranger sent
    if not isinstance(messages, list) or not messages:
        raise ChatInputError("messages must be a list with at least one message", param="messages")
    for index, turn in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(turn, dict):
            raise ChatInputError(f"{where} must be an object", param=where)
        if turn.get("role") not in _ROLES:
            allowed = ", ".join(_ROLES)
            raise ChatInputError(f"role {turn.get('role')!r} is not known; allowed: {allowed}", param=f"{where}.role")
        _check_content(turn, where)
        if turn["role"] == "tool" and not (isinstance(turn.get("tool_call_id"), str) and turn["tool_call_id"]):
            raise ChatInputError("a tool message needs its tool_call_id", param=f"{where}.tool_call_id")
        if turn.get("tool_calls") is not None:
            _check_calls(turn, where)
    return messages


def _check_content(turn: Mapping[str, Any], where: str) -> None:
    content, role = turn.get("content"), turn["role"]
    where = f"{where}.content"
    if isinstance(content, str):
        return
    if content is None:
        if role != "assistant":
            raise ChatInputError(f"{where} is missing: a text or a list of parts", param=where)
        return
    if not isinstance(content, list):
        raise ChatInputError(f"{where} must be a text or a list of parts", param=where)
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS[role]:
            raise ChatInputError(
                f"a part of type {kind!r} is not supported for role {role}; allowed: {', '.join(_PARTS[role])}",
                param=f"{where}[{index}].type",
            )
        if kind in ("text", "refusal") and not isinstance(part.get(kind), str):
            raise ChatInputError(f"a {kind} part needs {kind}, a text", param=f"{where}[{index}].{kind}")


def _check_calls(turn: Mapping[str, Any], where: str) -> None:
    calls = turn["tool_calls"]
    if turn["role"] != "assistant" or not isinstance(calls, list):
        raise ChatInputError("tool_calls is a list in an assistant message", param=f"{where}.tool_calls")
    for index, call in enumerate(calls):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type", "function") != "function":
            raise ChatInputError(f"{place} must have type function and a function", param=place)
        if not isinstance(call.get("id"), str) or not isinstance(function.get("name"), str):
            raise ChatInputError(f"{place} needs id and function.name, texts", param=place)


def _check_numbers(raw: Mapping[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        value = raw.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ChatInputError(f"{name} is {value!r}; allowed: {low:g} to {high:g}", param=name)


def _read_count(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ChatInputError(f"{name} is {value!r}; allowed: a whole number from 1", param=name)
    return value


def _read_flag(raw: Mapping[str, Any], name: str, prefix: str = "") -> bool:
    value = raw.get(name)
    if value is not None and not isinstance(value, bool):
        raise ChatInputError(f"{prefix}{name} is {value!r}; allowed: true, false", param=f"{prefix}{name}")
    return bool(value)


def _read_object(value: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401 - what a stranger sent
    if value is not None and not isinstance(value, dict):
        raise ChatInputError(f"{name} must be an object", param=name)
    return value or {}


def _read_stop(stop: Any) -> tuple[str, ...]:  # noqa: ANN401 - what a stranger sent
    words = [stop] if isinstance(stop, str) else stop or []
    if (
        not isinstance(words, list)
        or len(words) > MAX_STOPS
        or not all(isinstance(word, str) and word for word in words)
    ):
        raise ChatInputError(f"stop must be a text or a list of at most {MAX_STOPS} texts", param="stop")
    return tuple(words)


def _find_beyond_text(raw: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Name what the student can't do at all."""
    found: list[str] = []
    if raw.get("tools"):
        found.append("tools")
    if _read_object(raw.get("response_format"), "response_format").get("type", "text") != "text":
        found.append("response_format")
    for turn in messages:
        if turn["role"] == "tool" or turn.get("tool_calls"):
            found.append("tool messages")
        content = turn.get("content")
        kinds = {part["type"] for part in content} if isinstance(content, list) else set()
        found.extend(name for kind, name in (("image_url", "images"), ("file", "files")) if kind in kinds)
        if not is_whole_text(text_of(content)):
            found.append(HALF_PAIR)
    return tuple(dict.fromkeys(found))


def _find_uncertified(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what the student could do, but what no exam looked at; the seed of a greedy answer changes nothing."""
    if raw.get("temperature") == 0:
        return ()
    return tuple(name for name in SAMPLING if name != "seed" and raw.get(name) not in _NEUTRAL[name])
