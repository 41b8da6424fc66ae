"""The registry of the five tools: name, words, scope, schemas, function. Every face (gRPC, CLI, MCP) goes through it.

Never a sixth tool. It knows no transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from shammah_chassis.errors import InvalidInputError, NotFoundError
from shammah_chassis.scopes import Caller, require_scope

from shammah_gateway.tools.analyze import analyze_model
from shammah_gateway.tools.compare import compare_responses
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.generate import generate_training_data
from shammah_gateway.tools.query import query_local_model
from shammah_gateway.tools.schemas import (
    AnalyzeInput,
    AnalyzeResult,
    CompareInput,
    CompareResult,
    GenerateInput,
    GenerateResult,
    QueryInput,
    QueryResult,
    TrainInput,
    TrainResult,
)
from shammah_gateway.tools.train import train


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool; `run` takes (context, caller, checked input)."""

    name: str
    description: str
    scope: str
    input_model: type[BaseModel]
    result_model: type[BaseModel]
    run: Callable[[ToolContext, Caller, Any], Awaitable[BaseModel]]

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the input."""
        return self.input_model.model_json_schema()

    @property
    def result_schema(self) -> dict[str, Any]:
        """The JSON schema of the result."""
        return self.result_model.model_json_schema()


TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            Tool(
                "query_local_model",
                "Ask the local student and see how its validator judges the response.",
                "ask",
                QueryInput,
                QueryResult,
                query_local_model,
            ),
            Tool(
                "compare_responses",
                "Compare the student's response with the teacher's.",
                "compare",
                CompareInput,
                CompareResult,
                compare_responses,
            ),
            Tool(
                "generate_training_data",
                "Queue checked examples for training: made by the teacher, or given by you.",
                "generate",
                GenerateInput,
                GenerateResult,
                generate_training_data,
            ),
            Tool(
                "analyze_model",
                "Test the student on examples that it was not taught; say where teaching pays most.",
                "analyze",
                AnalyzeInput,
                AnalyzeResult,
                analyze_model,
            ),
            Tool(
                "train",
                "Start a round of training, or follow one, and see what became of its release.",
                "train",
                TrainInput,
                TrainResult,
                train,
            ),
        )
    }
)


async def call_tool(context: ToolContext, caller: Caller, name: str, arguments: Mapping[str, Any]) -> BaseModel:
    """Check scope and input of a tool and run it.

    Raises:
        NotFoundError: no such tool. ForbiddenError: the scope is missing.
        InvalidInputError: names each wrong field and what is allowed; and whatever the tool raises.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise NotFoundError(f"there is no tool {name!r}; known: {', '.join(TOOLS)}")
    require_scope(caller, tool.scope)
    try:
        asked = tool.input_model.model_validate(dict(arguments))
    except ValidationError as error:
        raise InvalidInputError(describe(error, tool)) from error
    return await tool.run(context, caller, asked)


def describe(error: ValidationError, tool: Tool) -> str:
    """Return what is wrong with an input, in words."""
    faults = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            faults.append(f"unknown field {where!r}; allowed: {', '.join(tool.input_model.model_fields)}")
        else:
            faults.append(f"{where}: {item['msg']}")
    return "; ".join(faults)
