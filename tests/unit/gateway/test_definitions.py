"""The definitions of the five tools for the Messages API and for MCP, and the command that prints them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from shammah_gateway.tools.definitions import BEHAVIOURS, anthropic_tools, input_schema, mcp_tools, plain_schema
from shammah_gateway.tools.registry import TOOLS


def objects_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema of an object inside of a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects_in(item)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects_in(value)


def test_the_messages_api_gets_the_five_tools_with_plain_closed_schemas() -> None:
    tools = anthropic_tools()
    assert [tool["name"] for tool in tools] == list(TOOLS) == list(BEHAVIOURS)
    for tool in tools:
        assert set(tool) == {"name", "description", "input_schema"}
        assert tool["description"] == TOOLS[tool["name"]].description
        assert "$ref" not in json.dumps(tool) and "$defs" not in json.dumps(tool)
        Draft202012Validator.check_schema(tool["input_schema"])
        found = list(objects_in(tool["input_schema"]))
        assert found and all(schema["additionalProperties"] is False for schema in found)


def test_mcp_gets_titles_output_schemas_and_hints_too() -> None:
    for tool in mcp_tools():
        assert tool["title"] and tool["outputSchema"]["type"] == "object"
        assert "$ref" not in json.dumps(tool)
        Draft202012Validator.check_schema(tool["outputSchema"])
        assert set(tool["outputSchema"]["properties"]) == set(TOOLS[tool["name"]].result_model.model_fields)
        assert input_schema(tool["name"]) == tool["inputSchema"]
    assert input_schema("a_sixth") is None
    hints = {tool["name"]: tool["annotations"] for tool in mcp_tools()}
    assert {name for name, hint in hints.items() if not hint["readOnlyHint"]} == {"generate_training_data", "train"}
    assert {name for name, hint in hints.items() if hint["openWorldHint"]} == {
        "compare_responses",
        "generate_training_data",
    }


def test_a_plain_schema_says_the_same_as_the_one_with_references() -> None:
    tool = TOOLS["generate_training_data"]
    assert "$ref" in json.dumps(tool.input_schema)
    for given in (
        {"examples": [{"query": "a", "response": "b"}]},
        {"examples": [{"query": "a", "extra": 1}]},
        {"examples": []},
        {"category": "x", "count": 9},
        {"category": "x", "count": 10},
        {"categori": "x"},
    ):
        plain, own = Draft202012Validator(plain_schema(tool.input_schema)), Draft202012Validator(tool.input_schema)
        assert plain.is_valid(given) == own.is_valid(given)


def test_words_beside_a_reference_win_and_a_property_may_be_called_title() -> None:
    schema = {
        "$defs": {"Inner": {"type": "object", "title": "Inner", "description": "general", "properties": {}}},
        "type": "object",
        "title": "Outer",
        "properties": {
            "title": {"$ref": "#/$defs/Inner", "description": "special"},
            "x": {"default": {"$ref": "data"}},
        },
    }
    assert plain_schema(schema) == {
        "type": "object",
        "properties": {
            "title": {"type": "object", "description": "special", "properties": {}},
            "x": {"default": {"$ref": "data"}},
        },
    }


def test_a_schema_that_refers_to_itself_has_no_plain_form() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    with pytest.raises(ValueError, match="Node"):
        plain_schema({"$defs": {"Node": node}, "$ref": "#/$defs/Node"})


@pytest.mark.parametrize(("option", "schema"), [("--anthropic", "input_schema"), ("--mcp", "inputSchema")])
def test_the_command_prints_them_as_json(option: str, schema: str) -> None:
    command = [sys.executable, "-m", "shammah_gateway.cli", "tools", option]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert [tool["name"] for tool in printed] == list(TOOLS) and all(schema in tool for tool in printed)
