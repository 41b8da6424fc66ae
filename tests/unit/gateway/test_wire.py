from __future__ import annotations

from shammah.v1 import gateway_pb2
from shammah_chassis.scopes import Caller
from shammah_gateway.cli.ask import AskOptions, make_request
from shammah_gateway.values import Answer, Versions
from shammah_gateway.wire import read_arguments, read_ask, read_request_id, write_answer

ANN = Caller("ann", frozenset({"ask"}))


def test_every_wish_of_a_caller_arrives_from_the_command_line_over_the_wire() -> None:
    options = AskOptions(
        local_only=True,
        allow_degraded=True,
        no_learn=True,
        release="01R",
        max_tokens=7,
        temperature=0.5,
        alpha=0.02,
    )
    query = read_ask(make_request([("user", "Hi")], options), ANN)
    assert (query.local_only, query.allow_degraded, query.no_learn, query.release) == (True, True, True, "01R")
    assert (query.max_tokens, query.temperature, query.alpha) == (7, 0.5, 0.02)
    assert (query.user, query.may_audit, query.text) == ("ann", False, "Hi")


def test_a_conversation_arrives_and_nothing_said_is_nothing_wished() -> None:
    assert read_ask(gateway_pb2.AskRequest(conversation="s-1"), ANN).conversation == "s-1"
    query = read_ask(gateway_pb2.AskRequest(), ANN)
    assert (query.alpha, query.conversation, query.forward_reason) == (0.0, "", "")


def test_an_answer_leaves_with_its_tokens_and_how_it_ended() -> None:
    answer = Answer(
        query_id="q",
        text="Par",
        route="degraded",
        reason="budget",
        category="capitals",
        confidence=0.25,
        versions=Versions("01R", "r", "g", "v"),
        latency_seconds=0.5,
        input_tokens=21,
        output_tokens=3,
        stop_reason="max_tokens",
    )
    sent = write_answer(answer)
    assert (sent.input_tokens, sent.output_tokens, sent.stop_reason) == (21, 3, "max_tokens")
    assert (sent.route, sent.reason, sent.versions.release) == (gateway_pb2.ROUTE_DEGRADED, "budget", "01R")


def test_the_key_of_a_call_is_read_from_its_metadata() -> None:
    assert read_request_id((("authorization", "Bearer x"), ("x-shammah-request-id", "step 7"))) == "step 7"
    assert read_request_id((("x-shammah-request-id", b"\xe9"),)) == "\xe9"
    assert read_request_id(()) == "" and read_request_id(None) == ""


def test_an_empty_query_arrives_as_an_empty_one_not_as_a_missing_one() -> None:
    assert read_arguments(gateway_pb2.QueryLocalModelRequest(max_tokens=7)) == {"query": "", "max_tokens": 7}
    assert read_arguments(gateway_pb2.QueryLocalModelRequest(query="Hi")) == {"query": "Hi"}
    assert read_arguments(gateway_pb2.CompareResponsesRequest(job="J")) == {"job": "J"}
