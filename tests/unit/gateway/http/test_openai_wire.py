from __future__ import annotations

import json
from typing import Any

import pytest
from shammah_chassis.examples import Message
from shammah_gateway.http.openai_wire import ChatInputError, check_supported, read_chat, read_text_turns


def body(**changes: Any) -> bytes:
    base = {"model": "shammah-auto", "messages": [{"role": "user", "content": "hello"}]}
    return json.dumps({**base, **changes}).encode()


def test_a_plain_request_is_read_and_may_be_answered_locally() -> None:
    chat = read_chat(body(max_tokens=5, stop="x"))
    assert (chat.model, chat.stream, chat.max_tokens, chat.stop) == ("shammah-auto", False, 5, ("x",))
    assert chat.beyond_text == () and chat.temperature == 0.0
    assert chat.uncertified == ()


def test_the_newer_token_limit_wins_over_the_older() -> None:
    assert read_chat(body(max_tokens=5, max_completion_tokens=7)).max_tokens == 7


def test_absent_temperature_is_no_wish_and_an_explicit_one_is() -> None:
    assert read_chat(body()).uncertified == ()
    assert read_chat(body(temperature=0, top_p=0.1)).uncertified == ()
    assert read_chat(body(top_p=0.1)).uncertified == ("top_p",)
    assert read_chat(body(top_p=1)).uncertified == ()
    sampled = read_chat(body(temperature=0.7, seed=3))
    assert sampled.uncertified == ("temperature",) and sampled.sampling == ("temperature", "seed")
    assert sampled.temperature == 0.7


def test_what_only_a_teacher_can_do_is_named() -> None:
    image = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = read_chat(
        body(
            messages=[
                {"role": "user", "content": image},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
            ],
            tools=[{"type": "function", "function": {"name": "f"}}],
            response_format={"type": "json_object"},
        )
    )
    assert chat.beyond_text == ("tools", "response_format", "images", "tool messages")
    with pytest.raises(ChatInputError, match="no tools"):
        read_text_turns(chat)


def test_text_turns_join_parts_and_call_a_developer_system() -> None:
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    assert read_text_turns(read_chat(body(messages=turns))) == (
        Message("system", "be brief"),
        Message("user", "ab"),
        Message("assistant", "c"),
        Message("user", "d"),
    )


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(ChatInputError) as caught:
        read_chat(body(**changes))
    assert caught.value.param == param


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ChatInputError):
        read_chat(data)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"wombat": 1}, "wombat"),
    ],
)
def test_what_nobody_here_can_do_is_refused_and_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(ChatInputError) as caught:
        check_supported(read_chat(body(**changes)))
    assert caught.value.param == param


def test_harmless_fields_are_taken() -> None:
    check_supported(
        read_chat(body(n=1, logprobs=False, user="u", store=True, seed=1, wombat=None, modalities=["text"]))
    )
