"""The calls against the contract: nothing of it is missing, and what is sent is what the gateway reads."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import shammah_client
from google.protobuf.descriptor import Descriptor
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis import examples as theirs
from shammah_client import AsyncClient, Client, Example, Message, calls, results, states
from shammah_client.errors import InvalidInputError
from shammah_client.examples import read_turns
from shammah_client.reading import read_message
from shammah_gateway.config import GatewaySettings

ROOT = Path(shammah_client.__file__).parent
KINDS: list[tuple[Descriptor, type[Any]]] = [
    (pb.AskResponse.DESCRIPTOR, results.Answer),
    (pb.QueryLocalModelResponse.DESCRIPTOR, results.LocalResponse),
    (pb.CompareResponsesResponse.DESCRIPTOR, results.Comparison),
    (pb.GenerateTrainingDataResponse.DESCRIPTOR, results.GeneratedData),
    (pb.AnalyzeModelResponse.DESCRIPTOR, results.Analysis),
    (pb.GatewayServiceTrainResponse.DESCRIPTOR, results.Round),
    (pb.SendFeedbackResponse.DESCRIPTOR, results.Feedback),
    (pb.SubmitExamplesResponse.DESCRIPTOR, results.Submitted),
    (pb.PromoteReleaseResponse.DESCRIPTOR, states.Promotion),
    (pb.RollbackReleaseResponse.DESCRIPTOR, states.Rollback),
    (pb.ReleaseInfo.DESCRIPTOR, states.Release),
    (pb.GetStatusResponse.DESCRIPTOR, states.Status),
]


def compare_fields(described: Descriptor, kind: type[Any]) -> None:
    assert {item.name for item in dataclasses.fields(kind)} == set(described.fields_by_name), kind
    hints = get_type_hints(kind)
    for name, one in described.fields_by_name.items():
        if one.message_type is not None:
            inner = [part for part in (*get_args(hints[name]), hints[name]) if dataclasses.is_dataclass(part)]
            assert isinstance(inner[0], type)
            compare_fields(one.message_type, inner[0])


@pytest.mark.parametrize(("described", "kind"), KINDS, ids=lambda one: getattr(one, "name", ""))
def test_a_result_has_every_field_of_the_contract(described: Descriptor, kind: type[Any]) -> None:
    compare_fields(described, kind)


def test_every_rpc_can_be_called_by_both_clients() -> None:
    source = ast.parse((ROOT / "calls.py").read_text("utf-8"))
    methods = pb.DESCRIPTOR.services_by_name["GatewayService"].methods_by_name
    texts = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    assert set(methods) <= texts
    for name in (node.name for node in source.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"):
        ours, others = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))
        assert ours == others, name
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name)), name


def test_every_option_of_a_question_is_a_field_of_the_request() -> None:
    fields = set(pb.AskRequest.DESCRIPTOR.fields_by_name)
    assert {*calls.AskOptions.__optional_keys__, "messages"} == fields
    with pytest.raises(TypeError, match="no option 'top_p'"):
        calls.ask("x", {"top_p": 1})  # type: ignore[typeddict-unknown-key]


def test_a_query_is_a_text_or_turns() -> None:
    turns = (Message("system", "Be brief."), Message("user", "Hi"))
    assert read_turns("Hi") == (Message("user", "Hi"),)
    assert read_turns([turns[0], {"role": "user", "content": "Hi"}]) == turns
    request = calls.ask(turns, {"alpha": 0.02}).request
    assert isinstance(request, pb.AskRequest)
    assert ([turn.role for turn in request.messages], request.alpha) == (["system", "user"], 0.02)
    for wrong in ([{"role": "user"}], ["Hi"], [{"role": "user", "content": 3}]):
        with pytest.raises(InvalidInputError):
            read_turns(wrong)  # type: ignore[arg-type]


def test_an_example_is_read_by_the_gateway_with_all_it_says() -> None:
    given = Example(
        query=[Message("user", "2 + 2?")],
        response="4",
        category="sums",
        grader="json",
        answers=["4"],
        accepted={"a": [4]},
        weight=2.0,
        origin="synthetic",
        licence="CC0",
        consent=["train"],
    )
    read = theirs.Example.from_json(json.loads(given.to_json()))
    assert (read.query, read.response, read.category, read.grader) == (
        (theirs.Message("user", "2 + 2?"),),
        "4",
        "sums",
        "json",
    )
    assert (read.answers, read.accepted, read.weight, read.reference) == (("4",), {"a": [4]}, 2.0, "4")
    assert (read.provenance.origin, read.provenance.licence, read.provenance.consent) == (
        "synthetic",
        "CC0",
        ("train",),
    )
    with pytest.raises(InvalidInputError):
        Example(query=[3], response="4", category="sums").to_json()  # type: ignore[list-item]


def test_enums_become_words_and_what_is_not_set_is_none() -> None:
    answer = read_message(results.Answer, pb.AskResponse(route=pb.ROUTE_DEGRADED))
    assert (answer.route, answer.attempt) == ("degraded", None)
    unknown = pb.AskResponse()
    unknown.ParseFromString(b"\x18\x63")  # route = 99, of a newer gateway
    assert read_message(results.Answer, unknown).route == "99"
    assert read_message(results.Answer, pb.AskResponse()).route == ""


def test_an_order_is_waited_for_longer_than_the_gateway_waits_for_its_pods() -> None:
    holding = GatewaySettings.model_fields["hold_seconds"].default
    assert calls.promote_release("r", force=False).timeout > holding
    assert calls.rollback_release("").timeout > holding


def test_the_client_is_light() -> None:
    """It imports neither the services nor anything heavy, and its distribution asks for three things."""
    code = (
        "import sys, shammah_client\n"
        "heavy = {'torch', 'anthropic', 'openai', 'numpy', 'onnxruntime', 'pydantic', 'starlette', 'aiohttp',"
        " 'shammah_chassis', 'shammah_gateway'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    project = (ROOT.parent / "pyproject.toml").read_text("utf-8")
    line = next(line for line in project.splitlines() if line.startswith("dependencies"))
    assert [part.strip(' "[]').split(">")[0] for part in line.split("=", 1)[1].split(",")] == [
        "grpcio",
        "protobuf",
        "shammah-protos",
    ]
