from __future__ import annotations

import json
from typing import Any

import pytest
from shammah_gateway.http.openai_capture import ChunkCapture, read_chat_usage, read_completion
from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage

COUNTS = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}


def piece(text: str | None, finish: str | None = None) -> dict[str, Any]:
    return {"model": "m", "choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def wire(*chunks: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)


def test_a_stream_is_read_wherever_its_bytes_are_cut() -> None:
    data = wire(piece("Pa"), piece("rís"), piece(None, "stop"), {"choices": [], "usage": COUNTS}) + b"data: [DONE]\n\n"
    capture = ChunkCapture(want_text=True)
    for at in range(len(data)):
        capture.feed(data[at : at + 1])
    found = capture.read()
    assert (found.text, found.model, found.stop_reason, found.known) == ("París", "m", "stop", True)
    assert found.usage == Usage(input_tokens=7, cache_read=3, output_tokens=4)
    assert capture.ended and capture.between_events


def test_a_stream_that_breaks_has_no_end_and_no_known_cost() -> None:
    capture = ChunkCapture(want_text=True)
    capture.feed(wire(piece("Pa")) + b'data: {"cho')
    found = capture.read()
    assert (found.stop_reason, found.known, capture.ended, capture.between_events) == (None, False, False, False)


def test_an_error_in_a_stream_is_no_answer() -> None:
    capture = ChunkCapture(want_text=True)
    capture.feed(wire(piece("Pa", "stop"), {"error": {"message": "gone"}}))
    assert (capture.read().stop_reason, capture.read().error_message, capture.ended) == (None, "gone", True)


def test_text_that_nobody_wants_is_not_kept() -> None:
    capture = ChunkCapture(want_text=False)
    capture.feed(wire(piece("Paris", "stop")))
    assert (capture.read().text, capture.read().stop_reason) == ("", "stop")


def test_a_whole_reply_is_read() -> None:
    reply = {"model": "m", "choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}], "usage": COUNTS}
    found = read_completion(json.dumps(reply).encode())
    assert (found.text, found.model, found.stop_reason, found.known) == ("Paris", "m", "stop", True)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}'])
def test_what_is_no_completion_says_nothing(body: bytes) -> None:
    found = read_completion(body)
    assert (found.text, found.known) == ("", False)


def test_without_counts_the_usage_is_unknown() -> None:
    assert read_chat_usage(None) is UNKNOWN_USAGE
    assert read_chat_usage({"prompt_tokens": "x"}) is UNKNOWN_USAGE
