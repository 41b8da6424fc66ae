"""The five tools as other programs define tools: for the Messages API (`tools=[...]`) and for MCP (`tools/list`).

Everything is read from the registry; what is added is how each tool behaves. It calls no tool and imports no SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from shammah_gateway.tools.registry import TOOLS, Tool

_REF = "#/$defs/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a client may assume of a tool before it calls it (the hints of MCP's tool annotations).

    `reads_only`: nothing is changed. `repeatable`: a second call with the same arguments adds nothing. `open_world`:
    something outside of this installation (the teacher) may be asked. Nothing that a tool does is destructive: examples
    and releases are only added, and an earlier release can be gone back to.
    """

    title: str
    reads_only: bool
    repeatable: bool
    open_world: bool


BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType(
    {
        "query_local_model": Behaviour(
            title="Ask the local student", reads_only=True, repeatable=True, open_world=False
        ),
        "compare_responses": Behaviour(
            title="Compare student and teacher", reads_only=True, repeatable=True, open_world=True
        ),
        "generate_training_data": Behaviour(
            title="Queue training examples", reads_only=False, repeatable=False, open_world=True
        ),
        "analyze_model": Behaviour(
            title="Find out where teaching pays", reads_only=True, repeatable=True, open_world=False
        ),
        "train": Behaviour(title="Train the student", reads_only=False, repeatable=False, open_world=False),
    }
)


def anthropic_tools() -> list[dict[str, Any]]:
    """Return the definitions for `tools=` of the Messages API: name, description, input_schema."""
    return [
        {"name": tool.name, "description": tool.description, "input_schema": plain_schema(tool.input_schema)}
        for tool in TOOLS.values()
    ]


def mcp_tools() -> list[dict[str, Any]]:
    """Return the definitions as `tools/list` of MCP writes them: also title, outputSchema and annotations."""
    return [_mcp_tool(tool) for tool in TOOLS.values()]


@cache
def input_schema(name: str) -> dict[str, Any] | None:
    """Return the plain input schema of a tool; None when there is no such tool."""
    tool = TOOLS.get(name)
    return plain_schema(tool.input_schema) if tool else None


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema without references and without the titles that only repeat a field's name.

    Not every reader of a tool definition follows `$ref`.

    Raises:
        ValueError: the schema refers to itself, so it has no plain form.
    """
    plain: dict[str, Any] = _inline(schema, schema.get("$defs", {}), ())
    return plain


def _mcp_tool(tool: Tool) -> dict[str, Any]:
    behaviour = BEHAVIOURS[tool.name]
    return {
        "name": tool.name,
        "title": behaviour.title,
        "description": tool.description,
        "inputSchema": plain_schema(tool.input_schema),
        "outputSchema": plain_schema(tool.result_schema),
        "annotations": {
            "title": behaviour.title,
            "readOnlyHint": behaviour.reads_only,
            "destructiveHint": False,
            "idempotentHint": behaviour.repeatable,
            "openWorldHint": behaviour.open_world,
        },
    }


def _inline(part: Any, definitions: Mapping[str, Any], above: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(part, list):
        return [_inline(item, definitions, above) for item in part]
    if not isinstance(part, Mapping):
        return part
    name = str(part.get("$ref", "")).removeprefix(_REF)
    if name in above:
        raise ValueError(f"the schema {name} refers to itself")
    if name:
        # What stands beside a reference (a description, a default) belongs to the place, so it wins.
        beside = {key: value for key, value in part.items() if key != "$ref"}
        return {
            **_inline(definitions[name], definitions, (*above, name)),
            **_inline(beside, definitions, above),
        }
    return {key: _inline_entry(key, value, definitions, above) for key, value in part.items() if _is_kept(key, value)}


def _inline_entry(key: str, value: Any, definitions: Mapping[str, Any], above: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Return the value of one keyword; the names of properties and the values of data are no keywords."""
    if key == "properties":
        return {name: _inline(schema, definitions, above) for name, schema in value.items()}
    if key in ("default", "enum", "const", "examples"):
        return value
    return _inline(value, definitions, above)


def _is_kept(key: str, value: object) -> bool:
    """Say whether a keyword belongs into the plain form. A property that is called "title" is a schema, no text."""
    return key != "$defs" and not (key == "title" and isinstance(value, str))
