"""The Messages API as plain values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Message
from shammah_gateway.http.anthropic_wire import check_version, read_messages, write_events, write_message
from shammah_gateway.values import Answer, Versions


def request(**changes: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **changes}


def answer(text: str = "one stop two", **changes: Any) -> Answer:
    return Answer(
        **{
            "query_id": "Q1",
            "text": text,
            "route": "local",
            "reason": "quality",
            "category": "c",
            "confidence": 0.9,
            "versions": Versions(),
            "latency_seconds": 0.1,
            "input_tokens": 7,
            "output_tokens": 3,
            **changes,
        }
    )


def test_text_turns_are_read_with_the_system_first() -> None:
    read = read_messages(
        request(
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": [{"type": "text", "text": "Two"}]},
                {"role": "user", "content": [{"type": "text", "text": "Three"}, {"type": "text", "text": "Four"}]},
            ],
            stream=True,
            metadata={"user_id": "u"},
            stop_sequences=["x"],
            tools=[],
            thinking={"type": "disabled"},
        )
    )
    assert read.messages == (
        Message("system", "Be brief."),
        Message("user", "One"),
        Message("assistant", "Two"),
        Message("user", "Three\n\nFour"),
    )
    assert (read.beyond, read.stream, read.stop_sequences, read.threaded) == ((), True, ("x",), False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tools": [{"name": "t"}]}, "tools"),
        ({"thinking": {"type": "adaptive"}}, "thinking"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config"),
        ({"top_k": 5}, "top_k"),
        ({"something_new": 1}, "something_new"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image blocks"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}, {"type": "text", "text": "?"}]}]},
            "document",
        ),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "last turn"),
        ({"messages": [{"role": "user", "content": "a" * 32_001}]}, "32000 characters"),
        ({"thread": {"type": "create"}}, "thread"),
    ],
)
def test_what_only_a_teacher_can_do_is_named(changes: dict[str, Any], named: str) -> None:
    assert named in ", ".join(read_messages(request(**changes)).beyond)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"model": None}, "model: Field required"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": []}, "at least one message"),
        ({"messages": "Hi"}, "valid list"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, r"messages.0.role"),
        ({"messages": [{"role": "user"}]}, r"messages.0.content: Field required"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, r"messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": 5}]}, "valid string or list"),
        ({"temperature": 3}, "temperature"),
        ({"stop_sequences": "x"}, "stop_sequences"),
    ],
)
def test_what_no_version_of_the_api_takes_is_refused_by_its_place(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        read_messages(request(**changes))


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_both_versions_are_spoken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["", "2024-01-01"])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidInputError, match="anthropic-version"):
        check_version(version)


def test_a_message_has_every_field() -> None:
    assert write_message(answer(), read_messages(request())) == {
        "id": "msg_Q1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "one stop two"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 3,
        },
    }


def test_a_text_is_cut_at_the_first_stop_sequence() -> None:
    message = write_message(answer(), read_messages(request(stop_sequences=["two", " stop"])))
    assert message["content"][0]["text"] == "one"
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", " stop")


@pytest.mark.parametrize("text", ["", "short", "é" * 1000])
def test_a_stream_has_the_events_in_order_and_the_whole_text(text: str) -> None:
    events = list(write_events(answer(text), read_messages(request(stream=True))))
    parsed = []
    for event in events:
        name, data, empty, end = event.decode().split("\n")
        assert (empty, end) == ("", "")
        assert name == f"event: {json.loads(data[6:])['type']}"
        parsed.append(json.loads(data[6:]))
    kinds = [event["type"] for event in parsed]
    deltas = [event["delta"]["text"] for event in parsed if event["type"] == "content_block_delta"]
    assert "".join(deltas) == text
    assert kinds == [
        *("message_start", "content_block_start", "ping"),
        *["content_block_delta"] * len(deltas),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert parsed[0]["message"]["content"] == [] and parsed[0]["message"]["stop_reason"] is None
    assert parsed[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert parsed[-2]["usage"]["output_tokens"] == 3
