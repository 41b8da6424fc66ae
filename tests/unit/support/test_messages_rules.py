"""What the strict stub refuses and takes, without HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from support.messages_rules import OLD_VERSION, check, check_count
from support.messages_stub import text, tool_use

USER = {"role": "user", "content": "Capital of France?"}
GOOD: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 10, "messages": [USER]}
TOOL = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
CALL = {"role": "assistant", "content": [tool_use("add", {"a": 1})]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "3"}]}


def with_messages(*turns: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**GOOD, "messages": list(turns), **changes}


@pytest.mark.parametrize(
    ("request_body", "word"),
    [
        ({**GOOD, "temperature": 1.0}, "temperature: Extra inputs"),
        ({**GOOD, "top_p": 0.9}, "top_p: Extra inputs"),
        ({**GOOD, "top_k": 1}, "top_k: Extra inputs"),
        ({**GOOD, "prompt": "x"}, "prompt: Extra inputs"),
        ({**GOOD, "max_completion_tokens": 5}, "max_completion_tokens: Extra inputs"),
        ({**GOOD, "thread": {"type": "create"}}, "thread: Extra inputs"),
        ({**GOOD, "context_management": {}}, "context_management: Extra inputs"),
        ({"model": "m", "messages": [USER]}, "max_tokens: Field required"),
        ({**GOOD, "max_tokens": "10"}, "max_tokens: Input should be"),
        ({**GOOD, "max_tokens": True}, "max_tokens: Input should be"),
        ({**GOOD, "max_tokens": 0}, "max_tokens: 0"),
        ({"max_tokens": 1, "messages": [USER]}, "model: Field required"),
        ({"max_tokens": 1, "model": "m"}, "messages: Field required"),
        ({**GOOD, "tools": [TOOL], "tool_choice": {"type": "any"}}, "forced tool use"),
        ({**GOOD, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "add"}}, "forced tool use"),
        ({**GOOD, "tool_choice": {"type": "auto"}}, "only be specified while providing tools"),
        ({**GOOD, "tools": [TOOL, TOOL]}, "unique"),
        ({**GOOD, "tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools.0.name"),
        ({**GOOD, "tools": [{"name": "add"}]}, "input_schema"),
        ({**GOOD, "thinking": {"type": "disabled"}}, "cannot disable thinking"),
        ({**GOOD, "thinking": {"type": "enabled", "budget_tokens": 2048}}, "budget_tokens"),
        ({**GOOD, "stop_sequences": [" "]}, "stop_sequences"),
        ({**GOOD, "metadata": {"session": "x"}}, "metadata"),
        ({**GOOD, "output_config": {"effort": "extreme"}}, "effort"),
        ({**GOOD, "output_config": {"format": {"type": "json_object"}}}, "json_schema"),
        (
            {**GOOD, "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "additionalProperties",
        ),
        (with_messages(), "at least one message"),
        (with_messages(USER, {"role": "assistant", "content": "It is"}), "prefill"),
        (with_messages({"role": "assistant", "content": "Hi"}, USER), "first message"),
        (with_messages({"role": "tool", "content": "x"}), "role"),
        (with_messages({"role": "user", "content": ""}), "non-empty"),
        (with_messages({"role": "user", "content": []}), "non-empty"),
        (with_messages({**USER, "name": "me"}), "name: Extra inputs"),
        (with_messages({"role": "user", "content": [{"type": "tool_use"}]}), "not allowed in a turn of the user"),
        (with_messages({"role": "user", "content": [{"type": "image"}]}), "source: Field required"),
        (with_messages(RESULT), "unexpected `tool_use_id`"),
        (with_messages(USER, CALL, USER), "without `tool_result`"),
        (with_messages(USER, {"role": "assistant", "content": "no call"}, RESULT), "unexpected `tool_use_id`"),
        (with_messages(USER, CALL, {"role": "user", "content": [text("x"), *RESULT["content"]]}), "come first"),
    ],
)
def test_what_the_api_refuses_is_refused_by_name(request_body: dict[str, Any], word: str) -> None:
    assert word in check(request_body)


@pytest.mark.parametrize(
    "request_body",
    [
        GOOD,
        {**GOOD, "system": "Be brief.", "stop_sequences": ["END"], "metadata": {"user_id": "u"}, "stream": True},
        {**GOOD, "system": [text("Be brief.")], "cache_control": {"type": "ephemeral"}},
        {**GOOD, "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        with_messages(USER, CALL, RESULT, tools=[TOOL], tool_choice={"type": "auto"}),
        with_messages(USER, {"role": "assistant", "content": "Paris"}, USER),
        with_messages({"role": "system", "content": "Be brief."}, USER),
        with_messages(USER, CALL, {"role": "user", "content": [*RESULT["content"], text("go on")]}),
    ],
)
def test_what_the_api_takes_is_taken(request_body: dict[str, Any]) -> None:
    assert check(request_body) == ""


def test_the_old_version_takes_what_old_models_took() -> None:
    old = {**GOOD, "model": "claude-sonnet-4-6"}
    prefilled = [USER, {"role": "assistant", "content": "It is"}]
    forced = {"tools": [TOOL], "tool_choice": {"type": "any"}}
    for changes in ({"temperature": 0.5}, {"messages": prefilled}, forced, {"thinking": {"type": "disabled"}}):
        assert check({**old, **changes}, version=OLD_VERSION) == ""
        # A model of today takes none of it, whatever the version says.
        assert check({**GOOD, **changes}, version=OLD_VERSION) != ""


def test_counting_takes_no_limit() -> None:
    body = {"model": "m", "messages": [USER]}
    assert check_count(body) == ""
    assert check_count({**body, "max_tokens": 5}) == "max_tokens: Extra inputs are not permitted"
    assert check_count({**body, "temperature": 0}, version=OLD_VERSION) != ""
