"""The real anthropic SDK through the HTTP door when things go wrong: bad input, a failing teacher, broken streams."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest
from support.doors import Doors
from support.whole import wait_until

AUTO, LOCAL, SONNET = "claude-shammah-auto", "claude-shammah-local", "claude-sonnet-5-5"


def ask(query: str, model: str = SONNET, **changes: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": query}], **changes}


def kind_of(error: anthropic.APIStatusError) -> str:
    body: Any = error.body
    assert set(body) == {"type", "error", "request_id"} and body["type"] == "error"
    return str(body["error"]["type"])


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (402, anthropic.APIStatusError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "api_error"),
        (504, anthropic.InternalServerError, "timeout_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("model", [SONNET, AUTO])
def test_an_error_of_the_teacher_reaches_the_caller_as_it_is(
    doors: Doors,
    claude: anthropic.Anthropic,
    status: int,
    kind: type[anthropic.APIStatusError],
    word: str,
    model: str,
) -> None:
    doors.cluster.script.quality = 0.1
    doors.stub.faults = [str(status)]
    with pytest.raises(kind) as caught:
        claude.messages.create(**ask(f"Fail with {status}", model))
    assert (caught.value.status_code, kind_of(caught.value)) == (status, word)
    assert f"told to fail with {status}" in str(caught.value)
    assert caught.value.request_id == json.loads(caught.value.response.text)["request_id"]
    assert caught.value.response.headers.get("retry-after") == ("300" if status in (429, 503, 529) else None)
    assert doors.examples(f"Fail with {status}") == []


def test_the_sdks_own_retries_work_through_the_door(doors: Doors) -> None:
    doors.stub.faults = ["429:0.01", "529:0.01"]
    with anthropic.Anthropic(api_key=doors.token, base_url=doors.url, max_retries=2) as client:
        assert client.messages.create(**ask("x")).stop_reason == "end_turn"
    assert len(doors.stub.calls) == 3


def test_an_error_before_a_stream_is_an_error(doors: Doors, claude: anthropic.Anthropic) -> None:
    doors.stub.faults = ["529"]
    with pytest.raises(anthropic.InternalServerError) as caught, claude.messages.stream(**ask("x")) as stream:
        stream.get_final_message()
    assert kind_of(caught.value) == "overloaded_error"


def test_a_teacher_that_drops_the_connection_is_an_api_error(doors: Doors, claude: anthropic.Anthropic) -> None:
    doors.stub.faults = ["drop"]
    with pytest.raises(anthropic.InternalServerError) as caught:
        claude.messages.create(**ask("Dropped"))
    assert caught.value.status_code in (502, 503) and kind_of(caught.value) == "api_error"
    assert doors.examples("Dropped") == []


@pytest.mark.parametrize("fault", ["stream-error", "stream-drop", "stream-end"])
@pytest.mark.parametrize("model", [SONNET, AUTO])
def test_a_stream_that_breaks_is_never_a_whole_answer(
    doors: Doors, claude: anthropic.Anthropic, fault: str, model: str
) -> None:
    """The SDK takes a clean end without message_delta for a whole answer: the door must say that it is none."""
    doors.cluster.script.quality = 0.1
    doors.stub.faults = [fault]
    before = doors.spent()
    pieces = []
    with (
        pytest.raises((anthropic.APIStatusError, httpx2.HTTPError)) as caught,
        claude.messages.stream(**ask(f"Broken by {fault}", model)) as stream,
    ):
        for event in stream:
            if event.type == "text":
                pieces.append(event.text)
    assert "".join(pieces) == "Paris"
    if fault == "stream-error":
        assert isinstance(caught.value, anthropic.APIStatusError) and kind_of(caught.value) == "overloaded_error"
    # What was read was made, and is paid.
    after = wait_until(lambda: now if (now := doors.spent()).calls > before.calls else None, what="the booking")
    assert after.input_tokens - before.input_tokens == 12
    assert doors.examples(f"Broken by {fault}") == []


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("claude-nope-9", anthropic.NotFoundError),
        ("claude-shammah-nope", anthropic.NotFoundError),
        ("claude-shammah-auto-1.5", anthropic.BadRequestError),
        ("", anthropic.BadRequestError),
    ],
)
def test_a_model_that_is_not_there_is_refused(
    claude: anthropic.Anthropic, model: str, kind: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(kind, match="model"):
        claude.messages.create(**ask("x", model))


@pytest.mark.parametrize("token", ["wrong", "right-key"])
@pytest.mark.parametrize("header", ["api_key", "auth_token"])
def test_a_token_that_nobody_issued_is_refused_before_the_teacher_hears_of_it(
    doors: Doors, token: str, header: str
) -> None:
    """The teacher's key is no token of ours either."""
    credentials: dict[str, Any] = {header: token}
    with (
        anthropic.Anthropic(**credentials, base_url=doors.url, max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**ask("x"))
    assert kind_of(caught.value) == "authentication_error"
    assert doors.stub.calls == []


def test_a_token_without_the_scope_is_refused(doors: Doors) -> None:
    reply = doors.send("POST", "/v1/messages", json.dumps(ask("x")).encode(), authorization="Bearer " + internal(doors))
    assert (reply.status, reply.json["error"]["type"]) == (403, "permission_error")
    assert doors.stub.calls == []


def internal(doors: Doors) -> str:
    return doors.cluster.tokens["internal"]


@pytest.mark.parametrize("model", [AUTO, LOCAL, SONNET])
@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": None},
        {"max_tokens": 0},
        {"max_tokens": "many"},
        {"messages": None},
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": "x"},
    ],
)
def test_a_request_of_another_shape_is_refused(doors: Doors, model: str, changes: dict[str, Any]) -> None:
    body = {name: value for name, value in {**ask("x", model), **changes}.items() if value is not None}
    reply = doors.send("POST", "/v1/messages", json.dumps(body).encode())
    assert (reply.status, reply.json["type"], reply.json["error"]["type"]) == (400, "error", "invalid_request_error")
    assert next(iter(changes)) in reply.json["error"]["message"]
    assert reply.headers["request-id"] == reply.json["request_id"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"model": "\xff"}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(doors: Doors, body: bytes) -> None:
    reply = doors.send("POST", "/v1/messages", body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_beyond_the_limit_is_refused(doors: Doors, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(**ask("x" * (1 << 20)))
    assert (caught.value.status_code, kind_of(caught.value)) == (413, "request_too_large")
    assert doors.stub.calls == []


@pytest.mark.parametrize("version", ["2020-01-01", ""])
def test_a_version_that_is_not_spoken_is_refused(doors: Doors, version: str) -> None:
    reply = doors.send("POST", "/v1/messages", json.dumps(ask("x")).encode(), anthropic_version=version)
    assert reply.status == 400 and "anthropic-version" in reply.json["error"]["message"]
    assert doors.stub.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/messages", 405), ("POST", "/v1/complete", 404), ("GET", "/nope", 404)],
)
def test_a_path_that_is_not_there_has_the_protocols_envelope(doors: Doors, method: str, path: str, status: int) -> None:
    reply = doors.send(method, path)
    assert (reply.status, reply.json["type"]) == (status, "error")


def test_a_sampling_field_is_refused_by_the_teacher_not_swallowed(doors: Doors, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="Extra inputs are not permitted"):
        claude.messages.create(**ask("x"), extra_body={"temperature": 1.0})
    assert doors.stub.requests[0]["temperature"] == 1.0


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-shammah-alpha", "2"), ("x-shammah-alpha", "x"), ("x-shammah-no-train", "maybe")],
)
def test_a_wish_that_can_not_be_read_is_refused(
    doors: Doors, claude: anthropic.Anthropic, header: str, value: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=header):
        claude.messages.create(**ask("x", AUTO), extra_headers={header: value})
    assert doors.stub.calls == []


def test_a_client_that_leaves_before_the_answer_does_no_harm(doors: Doors, claude: anthropic.Anthropic) -> None:
    doors.stub.faults = ["hang"]
    with pytest.raises(anthropic.APITimeoutError):
        claude.with_options(timeout=0.3).messages.create(**ask("Too slow"))
    doors.loop.call_soon_threadsafe(doors.stub.hold.set)
    assert claude.messages.create(**ask("Quick")).stop_reason == "end_turn"
