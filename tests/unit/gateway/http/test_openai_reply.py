from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from shammah_gateway.http.openai_reply import (
    DONE,
    ChunkWriter,
    ReplyHead,
    write_claude_completion,
    write_text_chunks,
    write_usage,
)

HEAD = ReplyHead("chatcmpl-1", "shammah-auto", 7)
USAGE = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 2,
    "output_tokens": 4,
    "output_tokens_details": {"thinking_tokens": 1},
}


def message(*content: dict[str, Any], stop_reason: str | None = "end_turn") -> dict[str, Any]:
    return {"content": list(content), "stop_reason": stop_reason, "usage": USAGE}


def test_a_message_of_claude_is_a_completion_of_the_sdk() -> None:
    reply = write_claude_completion(
        HEAD,
        message(
            {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Pa"}, {"type": "text", "text": "ris"}
        ),
    )
    read = ChatCompletion.model_validate(reply, strict=True)
    assert read.choices[0].message.content == "Paris" and read.choices[0].finish_reason == "stop"
    assert read.choices[0].message.tool_calls is None


def test_tool_uses_are_tool_calls_and_the_content_is_null() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": "ü"}}
    reply = write_claude_completion(HEAD, message(use, stop_reason="tool_use"))
    read = ChatCompletion.model_validate(reply, strict=True)
    calls = read.choices[0].message.tool_calls
    assert calls is not None and calls[0].type == "function" and calls[0].id == "toolu_1"
    assert json.loads(calls[0].function.arguments) == {"a": "ü"}
    assert read.choices[0].message.content is None and read.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "finish"), [(None, "length"), ("refusal", "content_filter"), ("max_tokens", "length")]
)
def test_an_answer_that_is_not_whole_is_not_called_finished(reason: str | None, finish: str) -> None:
    assert write_claude_completion(HEAD, message(stop_reason=reason))["choices"][0]["finish_reason"] == finish


def test_prompt_tokens_count_the_cache() -> None:
    assert write_usage(USAGE) == {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    assert write_usage({})["total_tokens"] == 0


def test_a_whole_answer_is_streamed_role_first_usage_last() -> None:
    writer = ChunkWriter(HEAD, include_usage=True)
    parts = list(write_text_chunks(writer, "Paris", finish="stop", usage=write_usage(USAGE)))
    assert parts[-1].endswith(DONE)
    frames = [line[6:] for line in b"".join(parts).decode().split("\n") if line.startswith("data: {")]
    chunks = [ChatCompletionChunk.model_validate_json(frame) for frame in frames]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].choices[0].delta.content == "Paris"
    assert chunks[2].choices[0].finish_reason == "stop"
    assert chunks[3].choices == [] and chunks[3].usage is not None and chunks[3].usage.prompt_tokens == 10
