"""What an answer said and cost, out of bytes that passed."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from shammah_gateway.http import capture
from shammah_gateway.http.capture import Captured, StreamCapture, read_json_answer
from support.messages_stream import encode_event, split_message

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Paris é \n\n it is"},
    ],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
        "output_tokens": 30,
    },
}
EVENTS = [encode_event(event) for event in split_message(MESSAGE)]
STREAM = b"".join(EVENTS)


def read(*chunks: bytes, want_text: bool = True, encoding: str = "") -> Captured:
    stream = StreamCapture(want_text=want_text, encoding=encoding)
    for chunk in chunks:
        stream.feed(chunk)
    return stream.read()


def check_whole(found: Captured) -> None:
    assert found.text == "Paris é \n\n it is"
    assert (found.model, found.stop_reason, found.known) == ("claude-sonnet-5-5", "end_turn", True)
    usage = found.usage
    assert (usage.input_tokens, usage.cache_read, usage.output_tokens) == (12, 5, 30)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_stream_is_read_wherever_it_is_cut_into_pieces(size: int) -> None:
    check_whole(read(*(STREAM[at : at + size] for at in range(0, len(STREAM), size))))


def test_a_long_stream_is_read_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "READ_AHEAD_BYTES", 50)
    check_whole(read(*(STREAM[at : at + 9] for at in range(0, len(STREAM), 9))))


def test_lines_may_end_in_the_way_of_windows() -> None:
    check_whole(read(STREAM.replace(b"\n", b"\r\n")))


def test_a_packed_stream_is_unpacked() -> None:
    packed = gzip.compress(STREAM)
    check_whole(read(packed[:20], packed[20:], encoding="gzip"))


def test_the_cost_is_known_without_the_text() -> None:
    found = read(STREAM, want_text=False)
    assert found.text == "" and found.usage.output_tokens == 30 and found.stop_reason == "end_turn"


def test_of_a_stream_that_stops_early_the_output_is_estimated_by_what_was_sent() -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 4000}}
    started = {**MESSAGE, "content": [], "usage": {"input_tokens": 12, "output_tokens": 1}}
    found = read(encode_event({"type": "message_start", "message": started}), encode_event(delta), want_text=False)
    assert found.stop_reason is None and found.known
    assert found.usage.input_tokens == 12
    assert 1000 <= found.usage.output_tokens <= 1010


def test_a_stream_of_which_nothing_came_has_no_known_cost() -> None:
    assert not read().known
    assert not read(b": comment\n\nevent: ping\ndata: {}\n\ndata: not json message_start\n\n").known


def test_an_error_event_is_no_answer() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    found = read(*EVENTS[:-2], encode_event(error))
    assert (found.stop_reason, found.error_type, found.error_message) == (None, "overloaded_error", "Overloaded")
    assert found.known


def test_the_tail_shows_how_it_ended() -> None:
    stream = StreamCapture(want_text=False)
    for event in EVENTS:
        stream.feed(event)
    assert b"message_stop" in stream.tail()


def test_a_json_answer() -> None:
    check_whole(read_json_answer(json.dumps(MESSAGE).encode()))
    check_whole(read_json_answer(gzip.compress(json.dumps(MESSAGE).encode()), encoding="gzip"))


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"content":3}', b"\xff"])
def test_what_is_no_message_has_no_known_cost(body: bytes) -> None:
    found = read_json_answer(body)
    assert (found.known, found.stop_reason, found.text) == (False, None, "")
