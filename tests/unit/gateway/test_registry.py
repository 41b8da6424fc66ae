from __future__ import annotations

from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from shammah.v1 import gateway_pb2
from shammah_chassis.errors import ForbiddenError, InvalidInputError, NotFoundError
from shammah_chassis.scopes import METHOD_SCOPES, Caller
from shammah_gateway.job_record import name_failure
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import TOOLS, call_tool
from shammah_gateway.tools.train import read_result

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
        ("query_local_model", {"query": "x\ud800"}, "query"),
        ("generate_training_data", {"examples": [{"query": "x\ud83d"}]}, "examples.0.query: Value error, it holds"),
        (
            "generate_training_data",
            {"examples": [{"response": "x\ud83d"}]},
            "examples.0.response: Value error, it holds",
        ),
        ("generate_training_data", {"category": "\ud83d", "count": 10}, "as a unicode string"),
        ("compare_responses", {"query": "x", "teacher_response": ""}, "teacher_response"),
        ("compare_responses", {"query": "x", "cancel": True}, "give its id in 'job'"),
        ("generate_training_data", {"category": "x", "count": "many"}, "count"),
        ("generate_training_data", {"category": "x", "count": "20"}, "count: Input should be a valid integer"),
        ("generate_training_data", {"category": "x", "count": 9}, "greater than or equal to 10"),
        ("generate_training_data", {"category": "x", "count": 101}, "less than or equal to 100"),
        ("generate_training_data", {"category": "x", "difficulty": "brutal"}, "'easy', 'medium' or 'hard'"),
        ("generate_training_data", {"category": "x", "focus": "y" * 1001}, "at most 1000 characters"),
        ("generate_training_data", {"examples": []}, "examples: List should have at least 1 item"),
        ("generate_training_data", {"examples": [{"query": "q", "response": "r"}] * 257}, "at most 256 items"),
        ("generate_training_data", {"examples": [{"query": 5}]}, "examples.0.query: Input should be a valid string"),
        ("generate_training_data", {"examples": [{"prompt": "q"}]}, "allowed: query, response, category, grader"),
        ("generate_training_data", {"cancel": True}, "give its id in 'job'"),
        ("analyze_model", {"test_count": 1.5}, "test_count"),
        ("analyze_model", {"test_count": 49}, "greater than or equal to 50"),
        ("analyze_model", {"test_count": 201}, "less than or equal to 200"),
        ("analyze_model", {"categories": "capitals"}, "categories: Input should be a valid list"),
        ("train", {"wait": "perhaps"}, "wait"),
        ("train", {"wait": 1}, "wait: Input should be a valid boolean"),
        ("train", {"cancel": True}, "give its id in 'job'"),
    ],
)
async def test_bad_arguments_are_named_with_what_is_allowed(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await call_tool(NOTHING, OWNER, name, arguments)
    assert words in caught.value.message


@pytest.mark.parametrize("request_id", ["x" * 129, "a\nb", "é", "\x7f"])
async def test_a_request_id_is_short_and_printable(request_id: str) -> None:
    with pytest.raises(InvalidInputError, match="at most 128, printable ASCII"):
        await call_tool(NOTHING, OWNER, "train", {}, request_id=request_id)


@pytest.mark.parametrize("name", RPC)
def test_every_field_is_described_and_has_its_bounds(name: str) -> None:
    properties = TOOLS[name].input_schema["properties"]
    assert all(field.get("description") for field in properties.values()), properties
    bounds = {
        ("generate_training_data", "count"): {"minimum": 10, "maximum": 100},
        ("generate_training_data", "difficulty"): {"enum": ["easy", "medium", "hard"]},
        ("generate_training_data", "examples"): {"minItems": 1, "maxItems": 256, "type": "array"},
        ("analyze_model", "test_count"): {"minimum": 50, "maximum": 200, "default": 100},
        ("query_local_model", "max_tokens"): {"minimum": 0, "maximum": 4096},
        ("query_local_model", "query"): {"minLength": 1, "maxLength": 32_000},
        ("compare_responses", "teacher_response"): {"minLength": 1},
    }
    for (tool, field), wanted in bounds.items():
        if tool == name:
            assert wanted.items() <= properties[field].items(), properties[field]
    long = name != "query_local_model"
    assert ("job" in properties, "cancel" in properties) == (long, long)


@pytest.mark.parametrize("name", RPC)
def test_the_words_say_what_it_tells_costs_and_leads_to(name: str) -> None:
    words = TOOLS[name].description
    assert all(f"\n{part}: " in words for part in ("Tells", "Costs", "Limits", "Next"))
    # What a word in quotes or with an underscore names is there.
    fields = {*TOOLS[name].input_schema["properties"], *TOOLS[name].result_schema["properties"]}
    assert not {"job", "cancel"} & fields or "`cancel`" in words
    assert len(words) < 4000


async def test_an_unknown_tool_and_a_missing_scope_are_refused() -> None:
    with pytest.raises(NotFoundError, match="query_local_model"):
        await call_tool(NOTHING, OWNER, "a_sixth", {})
    with pytest.raises(ForbiddenError, match="train"):
        await call_tool(NOTHING, Caller("guest", frozenset({"ask"})), "train", {})


def test_a_trainers_failure_keeps_its_name() -> None:
    assert name_failure("storage_full", "no space").status == "RESOURCE_EXHAUSTED"
    assert name_failure("training_stopped", "stopped").status == "UNAVAILABLE"
    assert name_failure("something new", "x").code == "internal"


def test_a_round_without_a_result_is_an_empty_one() -> None:
    assert read_result('{"verdict": "a word of tomorrow"}').verdict == "undecided"
    assert read_result("").verdict == "" and read_result('{"verdict": "held"}').verdict == "held"
