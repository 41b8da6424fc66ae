from __future__ import annotations

from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from shammah.v1 import gateway_pb2
from shammah_chassis.errors import ForbiddenError, InvalidInputError, NotFoundError
from shammah_chassis.scopes import METHOD_SCOPES, Caller
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import TOOLS, call_tool
from shammah_gateway.tools.train import name_failure, read_result

NOTHING = cast("ToolContext", None)
OWNER = Caller("owner", frozenset({"ask", "compare", "generate", "analyze", "train"}))
RPC = {
    "query_local_model": ("QueryLocalModel", "QueryLocalModelRequest", "QueryLocalModelResponse"),
    "compare_responses": ("CompareResponses", "CompareResponsesRequest", "CompareResponsesResponse"),
    "generate_training_data": (
        "GenerateTrainingData",
        "GenerateTrainingDataRequest",
        "GenerateTrainingDataResponse",
    ),
    "analyze_model": ("AnalyzeModel", "AnalyzeModelRequest", "AnalyzeModelResponse"),
    "train": ("Train", "GatewayServiceTrainRequest", "GatewayServiceTrainResponse"),
}


def test_there_are_five_tools_and_never_a_sixth() -> None:
    assert set(TOOLS) == set(RPC)


@pytest.mark.parametrize("name", RPC)
def test_schema_and_scope_are_those_of_the_rpc(name: str) -> None:
    method, request, response = RPC[name]
    tool = TOOLS[name]
    assert tool.scope == METHOD_SCOPES[f"/shammah.v1.GatewayService/{method}"]
    for message, model in ((request, tool.input_model), (response, tool.result_model)):
        fields = getattr(gateway_pb2, message).DESCRIPTOR.fields
        assert {field.name for field in fields} == set(model.model_fields)
    for schema in (tool.input_schema, tool.result_schema):
        Draft202012Validator.check_schema(schema)
    assert all("job" in TOOLS[long].input_model.model_fields for long in set(RPC) - {"query_local_model"})


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("query_local_model", {}, "query"),
        ("query_local_model", {"query": "x" * 32_001}, "32000"),
        ("query_local_model", {"query": "x", "max_tokens": 5000}, "4096"),
        ("query_local_model", {"query": "x", "temperature": 1}, "unknown field 'temperature'; allowed: query"),
        ("query_local_model", {"query": 5}, "string"),
        ("compare_responses", {"query": "x", "teacher_response": ""}, "teacher_response"),
        ("generate_training_data", {"category": "x", "count": "many"}, "count"),
        ("analyze_model", {"test_count": 1.5}, "test_count"),
        ("train", {"wait": "perhaps"}, "wait"),
    ],
)
async def test_bad_arguments_are_named_with_what_is_allowed(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await call_tool(NOTHING, OWNER, name, arguments)
    assert words in caught.value.message


async def test_an_unknown_tool_and_a_missing_scope_are_refused() -> None:
    with pytest.raises(NotFoundError, match="query_local_model"):
        await call_tool(NOTHING, OWNER, "a_sixth", {})
    with pytest.raises(ForbiddenError, match="train"):
        await call_tool(NOTHING, Caller("guest", frozenset({"ask"})), "train", {})


def test_a_trainers_failure_keeps_its_name() -> None:
    assert name_failure("storage_full", "no space").status == "RESOURCE_EXHAUSTED"
    assert name_failure("something new", "x").code == "internal"


def test_a_round_without_a_result_is_an_empty_one() -> None:
    assert read_result("").verdict == "" and read_result('{"verdict": "held"}').verdict == "held"
