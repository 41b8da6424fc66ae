"""The strict stub itself: what it refuses, the exact shapes it sends, and that the real SDK understands it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.messages_rules import OLD_VERSION, THREADS_BETA
from support.messages_stub import MessagesStub, serve_messages, text, tool_use
from support.services import until

HEADERS = {"x-api-key": "right-key", "anthropic-version": "2026-10-21"}
USER = {"role": "user", "content": "Capital of France?"}
GOOD: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 10, "messages": [USER]}
TOOL = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
CALL = {"role": "assistant", "content": [tool_use("add", {"a": 1})]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "3"}]}


@pytest.fixture
async def stub() -> AsyncIterator[MessagesStub]:
    async with serve_messages() as served:
        yield served


async def send(
    stub: MessagesStub, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Send one request; returns status, JSON and headers (lower case)."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, stub.url + path, data=data, headers=named) as reply,
    ):
        return reply.status, json.loads(await reply.read()), {k.lower(): v for k, v in reply.headers.items()}


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"x_api_key": "wrong"}, 401, "authentication_error"),
        ({"x_api_key": ""}, 401, "authentication_error"),
        ({"x_api_key": "", "authorization": "Basic right-key"}, 401, "authentication_error"),
        ({"x_api_key": "", "authorization": "Bearer right-key"}, 200, ""),
        ({"authorization": "Bearer other"}, 200, ""),
        ({"anthropic_version": "2024-01-01"}, 400, "invalid_request_error"),
        ({"anthropic_version": OLD_VERSION}, 200, ""),
    ],
)
async def test_key_and_version_are_looked_at(
    stub: MessagesStub, headers: dict[str, str], status: int, kind: str
) -> None:
    got, body, named = await send(stub, "POST", "/v1/messages?beta=true", GOOD, **headers)
    assert (got, body.get("error", {}).get("type", "")) == (status, kind)
    assert named["request-id"].startswith("req_")
    if status != 200:
        assert body["type"] == "error" and body["request_id"] == named["request-id"]
        assert stub.requests == []


async def test_a_missing_version_bad_json_an_unknown_model_and_an_unknown_path(stub: MessagesStub) -> None:
    status, body = stub.respond({"x-api-key": "right-key"}, b"{}")
    assert (status, body["error"]["message"]) == (400, "anthropic-version: header is required")
    assert (await send(stub, "POST", "/v1/messages", b"{broken"))[1]["error"]["message"].startswith("The request body")
    status, body, _ = await send(stub, "POST", "/v1/messages", {**GOOD, "model": "claude-shammah-auto"})
    assert (status, body["error"]["type"]) == (404, "not_found_error")
    assert (await send(stub, "POST", "/v1/complete", GOOD))[0] == 404
    assert stub.check_headers(HEADERS, (32 << 20) + 1)[0] == 413  # type: ignore[index]


async def test_a_message_has_exactly_these_fields(stub: MessagesStub) -> None:
    _, body, _ = await send(stub, "POST", "/v1/messages", GOOD)
    assert body == {
        "id": "msg_0001",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": "Paris"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "output_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "service_tier": "standard",
        },
    }


async def test_a_stop_sequence_cuts_the_text(stub: MessagesStub) -> None:
    stub.text = "one STOP two"
    _, body, _ = await send(stub, "POST", "/v1/messages", {**GOOD, "stop_sequences": ["STOP"]})
    assert (body["content"], body["stop_reason"], body["stop_sequence"]) == ([text("one ")], "stop_sequence", "STOP")


async def read_stream(stub: MessagesStub, body: dict[str, Any]) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """Return the events as (name, data), and the name of the failure if there was one."""
    raw, failure = b"", ""
    async with (
        aiohttp.ClientSession() as session,
        session.post(stub.url + "/v1/messages", json={**body, "stream": True}, headers=HEADERS) as reply,
    ):
        assert reply.headers["content-type"].startswith("text/event-stream")
        try:
            async for piece in reply.content.iter_any():
                raw += piece
        except aiohttp.ClientError as error:
            failure = type(error).__name__
    events = []
    for part in raw.decode().split("\n\n")[:-1]:
        name, data = part.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events, failure


async def test_a_stream_has_exactly_these_events(stub: MessagesStub) -> None:
    stub.replies = [
        [{"type": "thinking", "thinking": "hm", "signature": "sig"}, text("Paris"), tool_use("add", {"a": 1})]
    ]
    events, failure = await read_stream(stub, {**GOOD, "tools": [TOOL]})
    assert failure == ""
    assert all(name == data["type"] for name, data in events)
    shown = [data for _, data in events]
    start = shown[0]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 1)
    assert shown[1:] == [
        {"type": "ping"},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Par"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "is"}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_01", "name": "add", "input": {}},
        },
        *(
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in ("", '{"a', '": ', "1}")
        ),
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {
                "input_tokens": 12,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 3,
            },
        },
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("fault", "last", "failure"),
    [
        ("stream-drop", "content_block_delta", "Client"),
        ("stream-end", "content_block_delta", ""),
        ("stream-error", "error", ""),
    ],
)
async def test_a_stream_can_fail_in_the_middle(stub: MessagesStub, fault: str, last: str, failure: str) -> None:
    stub.faults = [fault]
    events, failed = await read_stream(stub, GOOD)
    assert events[-1][0] == last and failed.startswith(failure) and bool(failed) == bool(failure)
    assert "message_delta" not in [name for name, _ in events]
    if last == "error":
        assert events[-1][1]["error"]["type"] == "overloaded_error"
    assert (await read_stream(stub, GOOD))[0][-1][0] == "message_stop"


@pytest.mark.parametrize(
    ("fault", "status", "kind", "pause"),
    [
        ("429", 429, "rate_limit_error", "300"),
        ("429:2", 429, "rate_limit_error", "2"),
        ("529", 529, "overloaded_error", "300"),
        ("500", 500, "api_error", None),
        ("402", 402, "billing_error", None),
    ],
)
async def test_a_fault_has_its_status_and_its_pause(
    stub: MessagesStub, fault: str, status: int, kind: str, pause: str | None
) -> None:
    stub.faults = [fault]
    got, body, headers = await send(stub, "POST", "/v1/messages", GOOD)
    assert (got, body["error"]["type"], headers.get("retry-after")) == (status, kind, pause)
    assert (await send(stub, "POST", "/v1/messages", GOOD))[0] == 200


async def test_a_dropped_connection_gives_no_answer(stub: MessagesStub) -> None:
    stub.faults = ["drop"]
    with pytest.raises(aiohttp.ClientError):
        await send(stub, "POST", "/v1/messages", GOOD)
    assert [call.path for call in stub.calls] == ["/v1/messages"]


async def test_tokens_are_counted_and_models_are_listed(stub: MessagesStub) -> None:
    _, body, _ = await send(stub, "POST", "/v1/messages/count_tokens", {"model": "m", "messages": [USER]})
    assert set(body) == {"input_tokens"} and body["input_tokens"] > 5
    _, models, _ = await send(stub, "GET", "/v1/models")
    assert set(models) == {"data", "has_more", "first_id", "last_id"}
    assert {tuple(sorted(one)) for one in models["data"]} == {("created_at", "display_name", "id", "lifecycle", "type")}
    assert (await send(stub, "GET", "/v1/models/claude-opus-5-5"))[1]["id"] == "claude-opus-5-5"
    assert (await send(stub, "GET", "/v1/models/nope"))[0] == 404
    assert (await send(stub, "GET", "/v1/models", x_api_key="wrong"))[0] == 401


async def test_a_batch_runs_to_its_results_on_the_host_that_was_asked(stub: MessagesStub) -> None:
    requests = [
        {"custom_id": "good", "params": GOOD},
        {"custom_id": "bad", "params": {**GOOD, "temperature": 1.0}},
    ]
    _, made, _ = await send(stub, "POST", "/v1/messages/batches", {"requests": requests})
    path = f"/v1/messages/batches/{made['id']}"
    assert made["processing_status"] == "in_progress" and made["results_url"] is None
    assert made["request_counts"] == {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert (await send(stub, "GET", path + "/results"))[0] == 404
    assert (await send(stub, "GET", path))[1]["processing_status"] == "in_progress"
    _, ended, _ = await send(stub, "GET", path, host="front.example:81")
    assert ended["results_url"] == f"http://front.example:81{path}/results"
    assert ended["request_counts"] == {"processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}
    async with aiohttp.ClientSession() as session, session.get(stub.url + path + "/results", headers=HEADERS) as reply:
        rows = [json.loads(line) for line in (await reply.text()).splitlines()]
    assert [row["custom_id"] for row in rows] == ["bad", "good"]
    assert rows[0]["result"]["error"]["error"]["type"] == "invalid_request_error"
    assert rows[1]["result"]["message"]["content"] == [text("Paris")]
    assert (await send(stub, "DELETE", path))[1] == {"id": made["id"], "type": "message_batch_deleted"}
    assert (await send(stub, "GET", path))[0] == 404


async def test_a_cancelled_batch_ends_without_answers(stub: MessagesStub) -> None:
    body = {"requests": [{"custom_id": "a", "params": GOOD}]}
    _, made, _ = await send(stub, "POST", "/v1/messages/batches", body)
    path = f"/v1/messages/batches/{made['id']}"
    assert (await send(stub, "DELETE", path))[0] == 400
    assert (await send(stub, "POST", path + "/cancel"))[1]["processing_status"] == "canceling"
    _, ended, _ = await send(stub, "GET", path)
    assert ended["request_counts"]["canceled"] == 1 and ended["cancel_initiated_at"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"requests": []},
        {"requests": [{"custom_id": "a b", "params": GOOD}]},
        {"requests": [{"custom_id": "a", "params": GOOD}] * 2},
        {"requests": [{"custom_id": "a", "params": {**GOOD, "stream": True}}]},
        {"requests": [{"custom_id": "a", "params": GOOD, "url": "/v1/messages"}]},
        [],
    ],
)
async def test_a_batch_of_another_shape_is_refused(stub: MessagesStub, body: Any) -> None:
    assert (await send(stub, "POST", "/v1/messages/batches", body))[0] == 400


async def start_thread(stub: MessagesStub) -> str:
    stub.replies = [[tool_use("add", {"a": 1})]]
    body = {**GOOD, "system": "Be brief.", "tools": [TOOL], "thread": {"type": "create"}}
    status, made, _ = await send(stub, "POST", "/v1/messages", body, anthropic_beta=THREADS_BETA)
    assert status == 200
    return str(made["id"])


async def go_on(stub: MessagesStub, previous: str, **changes: Any) -> tuple[int, Any]:
    thread = {"type": "continue", "previous_message_id": previous}
    body = {**GOOD, "messages": [RESULT], "thread": thread, **changes}
    status, said, _ = await send(stub, "POST", "/v1/messages", body, anthropic_beta=f"other-1, {THREADS_BETA}")
    return status, said


async def test_a_thread_goes_on_with_its_history_tools_and_system(stub: MessagesStub) -> None:
    status, _ = await go_on(stub, await start_thread(stub))
    assert status == 200
    assert stub.seen[-1]["messages"] == [USER, CALL, RESULT]
    assert stub.seen[-1]["system"] == "Be brief." and stub.seen[-1]["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tools": [TOOL]}, None),
        ({"messages": [USER]}, None),
        ({"messages": []}, None),
        ({"thread": {"type": "resume"}}, None),
        ({"thread": {"type": "continue", "previous_message_id": "msg_x"}}, "thread_not_found"),
        ({"cache_control": {"type": "ephemeral"}}, "thread_unsupported_request"),
    ],
)
async def test_a_thread_is_refused_by_its_rules(stub: MessagesStub, changes: dict[str, Any], code: str | None) -> None:
    status, said = await go_on(stub, await start_thread(stub), **changes)
    assert status in (400, 404)
    assert said["error"].get("details", {}).get("error_code") == code


async def test_a_reply_can_be_continued_once_and_a_lost_thread_is_not_found(stub: MessagesStub) -> None:
    first = await start_thread(stub)
    await go_on(stub, first)
    assert (await go_on(stub, first))[1]["error"]["details"] == {"error_code": "thread_already_continued"}
    stub.threads.forget()
    assert (await go_on(stub, first))[1]["error"]["details"] == {"error_code": "thread_not_found"}


async def test_a_client_that_leaves_a_stream_is_noticed(stub: MessagesStub) -> None:
    stub.faults = ["stream-wait"]
    async with (
        aiohttp.ClientSession() as session,
        session.post(stub.url + "/v1/messages", json={**GOOD, "stream": True}, headers=HEADERS) as reply,
    ):
        assert b"message_start" in await reply.content.readany()
    await until(lambda: stub.hung_up == 1)


async def test_the_real_sdk_talks_to_it(stub: MessagesStub) -> None:
    import anthropic

    async with anthropic.AsyncAnthropic(api_key="right-key", base_url=stub.url, max_retries=0) as client:
        said = await client.messages.create(**GOOD)
        assert said.content[0].type == "text" and said.content[0].text == "Paris"
        async with client.messages.stream(**GOOD) as stream:
            assert "".join([piece async for piece in stream.text_stream]) == "Paris"
            assert (await stream.get_final_message()).usage.output_tokens == 3
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(**GOOD, extra_body={"temperature": 1.0})
        made = await client.messages.batches.create(requests=[{"custom_id": "a", "params": GOOD}])  # type: ignore[typeddict-item]
        await client.messages.batches.retrieve(made.id)
        rows = [row async for row in await client.messages.batches.results(made.id)]
        assert rows[0].result.type == "succeeded"
