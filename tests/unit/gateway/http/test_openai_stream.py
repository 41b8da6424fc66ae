from __future__ import annotations

import json
from typing import Any

import pytest
from shammah_gateway.http.openai_reply import ChunkWriter, ReplyHead
from shammah_gateway.http.openai_stream import ChunkTranslator

START = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 9, "output_tokens": 1}}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
STOP = {"type": "message_stop"}


def piece(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def wire(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def translator(*, include_usage: bool = False) -> ChunkTranslator:
    return ChunkTranslator(ChunkWriter(ReplyHead("chatcmpl-1", "shammah-auto", 7), include_usage=include_usage))


def read(data: bytes) -> list[Any]:
    frames = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
    return [frame if frame == "[DONE]" else json.loads(frame) for frame in frames]


def deltas(data: bytes) -> list[Any]:
    return [frame["choices"][0]["delta"] for frame in read(data) if frame != "[DONE]" and frame.get("choices")]


def test_text_is_sent_on_as_it_comes_and_kept_for_the_books() -> None:
    stream = translator(include_usage=True)
    first = stream.feed(wire(START, {"type": "ping"}, piece("Pa")))
    assert deltas(first) == [{"role": "assistant", "content": "", "refusal": None}, {"content": "Pa"}]
    rest = stream.feed(wire(piece("ris"), END, STOP)) + stream.close()
    frames = read(rest)
    assert frames[1]["choices"][0]["finish_reason"] == "stop"
    assert frames[2]["choices"] == [] and frames[2]["usage"]["total_tokens"] == 13
    assert frames[3] == "[DONE]" and len(frames) == 4
    assert all(frame["usage"] is None for frame in frames[:2])
    assert (stream.text, stream.stop_reason, stream.model, stream.failed) == ("Paris", "end_turn", "claude-x", False)
    assert stream.usage == {"input_tokens": 9, "output_tokens": 4}


def test_the_result_does_not_depend_on_where_the_bytes_are_cut() -> None:
    data = wire(START, piece("Grüße 你"), END, STOP)
    whole = translator().feed(data)
    stream = translator()
    assert b"".join(stream.feed(data[at : at + 1]) for at in range(len(data))) == whole
    assert stream.text == "Grüße 你"


def test_lines_that_end_in_crlf_are_read() -> None:
    assert len(deltas(translator().feed(wire(START, piece("x")).replace(b"\n", b"\r\n")))) == 2


def test_tool_calls_come_in_pieces_and_one_without_arguments_is_an_empty_object() -> None:
    def begin(index: int, name: str) -> dict[str, Any]:
        block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
        return {"type": "content_block_start", "index": index, "content_block": block}

    def part(index: int, text: str) -> dict[str, Any]:
        delta = {"type": "input_json_delta", "partial_json": text}
        return {"type": "content_block_delta", "index": index, "delta": delta}

    stop = {"type": "content_block_stop"}
    stream = translator()
    data = stream.feed(
        wire(
            START,
            *(begin(0, "add"), part(0, ""), part(0, '{"a"'), part(0, ":1}"), stop),
            *(begin(1, "now"), part(1, ""), stop),
            {**END, "delta": {"stop_reason": "tool_use"}},
            STOP,
        )
    )
    calls = [delta["tool_calls"][0] for delta in deltas(data) if "tool_calls" in delta]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [
        *((0, ""), (0, '{"a"'), (0, ":1}")),
        *((1, ""), (1, "{}")),
    ]
    assert [call["id"] for call in calls if "id" in call] == ["toolu_0", "toolu_1"]
    assert read(data)[-2]["choices"][0]["finish_reason"] == "tool_calls" and stream.has_calls


def test_thinking_is_left_out() -> None:
    begin = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    think = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    assert translator().feed(wire(begin, think, {"type": "content_block_stop"})) == b""


def test_an_error_event_ends_the_stream_with_an_error() -> None:
    stream = translator()
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    data = stream.feed(wire(START, piece("x"), error, piece("y"))) + stream.close()
    assert read(data)[-1]["error"] == {
        "message": "Overloaded",
        "type": "overloaded_error",
        "param": None,
        "code": "overloaded_error",
    }
    assert stream.failed and stream.text == "x" and b"[DONE]" not in data


@pytest.mark.parametrize("events", [(START, piece("x")), (START, piece("x"), STOP), ()])
def test_a_stream_that_ends_early_is_an_error_and_no_answer(events: tuple[dict[str, Any], ...]) -> None:
    stream = translator()
    frames = read(stream.feed(wire(*events)) + stream.close())
    assert "ended before" in frames[-1]["error"]["message"]
    assert stream.failed and stream.stop_reason is None


def test_a_missing_message_stop_is_tolerated() -> None:
    stream = translator()
    assert read(stream.feed(wire(START, piece("x"), END)) + stream.close())[-1] == "[DONE]"
    assert not stream.failed


@pytest.mark.parametrize("data", [b"data: {x}\n", b"data: 3\n", b'data: {"type": "message_start"}\n'])
def test_an_event_of_no_protocol_is_an_error(data: bytes) -> None:
    stream = translator()
    assert "error" in read(stream.feed(data))[0]
    assert stream.failed and stream.close() == b""


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter"), ("new_reason", "stop")],
)
def test_stop_reasons_are_named_in_the_words_of_openai(reason: str, finish: str) -> None:
    stream = translator()
    frames = read(stream.feed(wire(START, {**END, "delta": {"stop_reason": reason}}, STOP)))
    assert frames[1]["choices"][0]["finish_reason"] == finish
    assert stream.stop_reason == reason
