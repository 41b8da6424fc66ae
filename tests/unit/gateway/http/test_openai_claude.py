from __future__ import annotations

import json
from typing import Any

import pytest
from shammah_gateway.http.openai_claude import JSON_OBJECT_RULE, close_objects, write_claude_body
from shammah_gateway.http.openai_wire import ChatInputError, read_chat
from support.messages_stub import check

USER = {"role": "user", "content": "hello"}


def translate(**fields: Any) -> dict[str, Any]:
    chat = read_chat(json.dumps({"model": "shammah-auto", "messages": [USER], **fields}).encode())
    return write_claude_body(chat, model="claude-x", default_max_tokens=1024)


def test_the_strict_api_takes_a_translated_request_with_sampling_fields() -> None:
    written = translate(temperature=0.7, top_p=0.9, seed=1, frequency_penalty=1, presence_penalty=1, user="u")
    assert check(written) == ""
    assert written == {
        "model": "claude-x",
        "max_tokens": 1024,
        "messages": [USER],
        "metadata": {"user_id": "u"},
    }


def test_all_system_texts_stand_before_the_turns() -> None:
    written = translate(
        messages=[{"role": "system", "content": "a"}, USER, {"role": "developer", "content": [text("b")]}], stop=["x"]
    )
    assert written["system"] == "a\n\nb" and written["messages"] == [USER] and written["stop_sequences"] == ["x"]


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def test_tool_calls_and_their_results_become_blocks_and_neighbours_one_turn() -> None:
    calls = [
        {"id": "call.1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
    ]
    written = translate(
        messages=[
            USER,
            {"role": "assistant", "content": "wait", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call.1", "content": "2"},
            {"role": "tool", "tool_call_id": "call_2", "content": [text("noon")]},
            {"role": "user", "content": "and?"},
        ]
    )
    assert written["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                text("wait"),
                {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "2"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "noon"},
                text("and?"),
            ],
        },
    ]


def test_images_and_files_become_sources() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
    ]
    content = translate(messages=[{"role": "user", "content": parts}])["messages"][0]["content"]
    assert [block["source"] for block in content] == [
        {"type": "base64", "media_type": "image/png", "data": "QUJD"},
        {"type": "url", "url": "https://x/y.png"},
        {"type": "base64", "media_type": "application/pdf", "data": "QUJD"},
    ]
    assert content[2]["title"] == "a.pdf"


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
    ],
)
def test_tools_and_the_choice_are_translated(choice: Any, parallel: Any, written: Any) -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    tools = [{"type": "function", "function": function}, {"type": "function", "function": {"name": "g"}}]
    body = translate(tools=tools, tool_choice=choice, parallel_tool_calls=parallel)
    assert body["tools"] == [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert body.get("tool_choice") == written


def test_a_schema_becomes_the_output_format_with_closed_objects() -> None:
    schema = {"type": "object", "properties": {"type": {"type": "object", "properties": {}}, "n": {"enum": [{}]}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    written = translate(response_format=form, reasoning_effort="minimal")
    assert check(written) == ""
    assert written["output_config"] == {
        "effort": "low",
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "type": {"type": "object", "properties": {}, "additionalProperties": False},
                    "n": {"enum": [{}]},
                },
            },
        },
    }


def test_an_open_object_that_the_caller_wants_stays_open() -> None:
    assert close_objects({"type": "object", "additionalProperties": True})["additionalProperties"] is True


def test_any_json_object_becomes_a_rule() -> None:
    assert translate(response_format={"type": "json_object"})["system"] == JSON_OBJECT_RULE


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"stop": ["a", "\n"]}, "stop"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "always"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages[0].content[0].file",
        ),
    ],
)
def test_what_cannot_be_translated_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ChatInputError) as caught:
        translate(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("arguments", ["[1]", "{", "3"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    with pytest.raises(ChatInputError, match="JSON object"):
        translate(messages=[USER, {"role": "assistant", "tool_calls": calls}, USER])
