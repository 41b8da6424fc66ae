"""Replies in the shape of OpenAI's chat completions: whole ones, and the chunks of a stream.

Made from a text (a local answer) or from a message of Claude. It knows no HTTP and no cascade.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shammah_gateway.http.json_text import write_json

DONE = b"data: [DONE]\n\n"
# Why the model stopped, in the words of both protocols. None is a stream that ended early: cut, not finished.
FINISH: Mapping[str | None, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    None: "length",
}


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What every part of one reply repeats: `id`, the model's name, `created` (seconds since 1970)."""

    id: str
    model: str
    created: int


def write_completion(
    head: ReplyHead, *, text: str | None, finish: str, usage: Mapping[str, Any], calls: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return a whole reply; `finish` and `usage` in the words of OpenAI."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message["tool_calls"] = list(calls)
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage,
    }


def write_claude_completion(head: ReplyHead, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply that says what a message of Claude says, under its model's name; thinking is left out."""
    blocks = message.get("content") or ()
    text = "".join(block["text"] for block in blocks if block.get("type") == "text")
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": json.dumps(block.get("input") or {}, ensure_ascii=False)},
        }
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    return write_completion(
        replace(head, model=str(message.get("model") or head.model)),
        text=text or (None if calls else ""),
        finish=FINISH.get(message.get("stop_reason"), "stop"),
        usage=write_usage(message.get("usage") or {}),
        calls=calls,
    )


def write_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return Claude's usage as OpenAI counts: its prompt tokens include what was written to and read from the cache."""
    read, out = int(usage.get("cache_read_input_tokens") or 0), int(usage.get("output_tokens") or 0)
    prompt = int(usage.get("input_tokens") or 0) + int(usage.get("cache_creation_input_tokens") or 0) + read
    thinking = int((usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": out,
        "total_tokens": prompt + out,
        "prompt_tokens_details": {"cached_tokens": read},
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


class ChunkWriter:
    """Writes the chunks of one stream; with `include_usage` each carries `usage`, null but in the last."""

    def __init__(self, head: ReplyHead, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head: dict[str, Any] = {
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
        }

    def name_model(self, model: str) -> None:
        """Say who really answers, once that is known."""
        self._head["model"] = model

    def delta(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        """Return a chunk of the answer."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._frame({"choices": [choice]} | ({"usage": None} if self._include_usage else {}))

    def end(self, usage: Mapping[str, Any]) -> bytes:
        """Return the end of the stream: the usage if it was asked for, and the mark that nothing follows."""
        return (self._frame({"choices": [], "usage": usage}) if self._include_usage else b"") + DONE

    def _frame(self, rest: Mapping[str, Any]) -> bytes:
        return write_frame({**self._head, **rest})


def write_text_chunks(writer: ChunkWriter, text: str, *, finish: str, usage: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the stream of an answer that is there as a whole."""
    yield writer.delta({"role": "assistant", "content": "", "refusal": None})
    if text:
        yield writer.delta({"content": text})
    yield writer.delta({}, finish)
    yield writer.end(usage)


def write_frame(value: Mapping[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"data: " + write_json(value) + b"\n\n"
