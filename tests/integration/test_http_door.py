"""The HTTP core and the Anthropic door over real sockets: bytes through, local answers, money, every kind of fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import uvloop
from shammah_chassis.errors import UnavailableError
from shammah_chassis.tokens import TokenTable
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http.app import make_app
from shammah_gateway.http.auth import Gatekeeper
from shammah_gateway.http.door import Door
from shammah_gateway.http.serve import HttpServer
from shammah_gateway.http.settings import HttpSettings
from shammah_gateway.http.upstream import UpstreamClient
from shammah_gateway.teachers.breaker import Breaker, BreakerLimits
from shammah_gateway.teachers.upstreams import Upstream, Upstreams
from support.gateway import Bench, PlainTeacher
from support.http_site import OTHER_TOKEN, TEACHER_MODEL, TOKEN, Site, serve_site
from support.messages_stub import MessagesStub, serve_messages
from support.raw_upstream import JSON_HEAD, STREAM_HEAD, RawUpstream, chunk, serve_raw
from support.services import until

PATH = "/v1/messages"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the gateway runs in: its transports are not asyncio's."""
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2026-10-21"}
    async with aiohttp.ClientSession(headers=headers, auto_decompress=False) as session:
        yield session


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve_site(http_max_body_bytes=100_000) as running:
        yield running


def request(model: str = TEACHER_MODEL, **changes: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": QUESTION}], **changes}


async def post(
    web: aiohttp.ClientSession, site: Site, body: Any, path: str = PATH, **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with web.post(site.url + path, data=data, headers=named) as response:
        return response, await response.read()


def error_of(body: bytes) -> tuple[str, str]:
    told = json.loads(body)
    assert set(told) == {"type", "error", "request_id"} and told["type"] == "error"
    return told["error"]["type"], told["error"]["message"]


def spent(site: Site) -> Any:
    return site.ledger.summary().spent["answer"]


class TestPassThrough:
    async def test_not_one_byte_of_the_body_changes_and_only_the_key_of_the_headers(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        body = json.dumps(request(), indent=3).encode() + b" \n"
        response, _ = await post(
            web, site, body, f"{PATH}?beta=true", anthropic_beta="a-1,b-2", x_shammah_no_train="1", x_other="kept"
        )
        assert response.status == 200
        call = site.stub.calls[0]
        assert call.body == body and call.query == "beta=true"
        assert (call.headers["anthropic-beta"], call.headers["x-other"]) == ("a-1,b-2", "kept")
        assert call.headers["x-api-key"] == site.stub.key and "authorization" not in call.headers
        assert not [name for name in call.headers if name.startswith("x-shammah")]

    async def test_the_reply_comes_back_as_it_was_and_says_who_made_it(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            body = b'{ "content" : [ {"type":"text","text":"\\u00e9"} ],"usage":{"input_tokens":1,"output_tokens":2}}'
            head = b"request-id: req_9\r\nX-Odd: a  b\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"
            raw.replies.append(JSON_HEAD + head + b"content-length: %d\r\n\r\n" % len(body) + body)
            response, got = await post(web, site, request())
            assert got == body
            assert response.headers["request-id"] == "req_9" and response.headers["x-odd"] == "a  b"
            assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
            assert response.headers["x-shammah-route"] == "teacher"
            assert response.headers["x-shammah-reason"] == "requested"

    async def test_it_is_booked_and_becomes_an_example(self, web: aiohttp.ClientSession, site: Site) -> None:
        await post(web, site, request())
        await until(lambda: len(site.bench.sink.examples) == 1)
        example = site.bench.sink.examples[0]
        assert (example.query_text, example.response) == (QUESTION, "Paris")
        assert example.provenance.teacher_model == TEACHER_MODEL
        assert (spent(site).calls, spent(site).input_tokens, spent(site).output_tokens) == (1, 12, 3)
        assert site.bench.monitor.forwarded == 1

    @pytest.mark.parametrize(
        ("changes", "headers"),
        [
            ({}, {"x_shammah_no_train": "1"}),
            ({"tools": [{"name": "t", "description": "d", "input_schema": {"type": "object"}}]}, {}),
            ({"thinking": {"type": "adaptive"}}, {}),
            ({"messages": [{"role": "user", "content": "x" * 40_000}]}, {}),
        ],
    )
    async def test_nothing_is_learned_from_a_request_of_another_kind(
        self, web: aiohttp.ClientSession, site: Site, changes: dict[str, Any], headers: dict[str, str]
    ) -> None:
        response, _ = await post(web, site, request(**changes), **headers)
        assert response.status == 200
        await until(lambda: spent(site).output_tokens == 3 and site.bench.monitor.queries == 1)
        assert site.bench.sink.examples == []

    async def test_an_answer_that_is_not_whole_is_booked_and_not_learned(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        site.stub.stop_reason = "max_tokens"
        await post(web, site, request())
        await until(lambda: site.bench.monitor.queries == 1)
        assert site.bench.sink.examples == [] and spent(site).output_tokens == 3

    async def test_with_routing_off_it_is_metered_and_nothing_else(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(http_routing=False) as site:
            for model in (TEACHER_MODEL, "claude-shammah-auto"):
                response, _ = await post(web, site, request(model))
                assert response.headers["x-shammah-reason"] in ("routing_off", "requested")
            await until(lambda: site.bench.monitor.forwarded == 2)
            assert spent(site).calls == 2 and site.bench.sink.examples == [] and site.bench.roles.calls == []

    async def test_a_body_that_nobody_can_read_is_the_upstreams_to_refuse(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        response, body = await post(web, site, b'{"model": ')
        assert response.status == 400 and error_of(body)[0] == "invalid_request_error"
        assert site.stub.calls[0].body == b'{"model": '


def upstream(raw: RawUpstream, name: str = "raw") -> Upstream:
    return Upstream(name=name, protocol="messages", base_url=raw.url, headers={"x-api-key": "k"}, model="m")


class TestStreams:
    async def test_events_go_through_as_they_are_and_are_booked_and_learned(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        response, body = await post(web, site, request(stream=True))
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert body.startswith(b"event: message_start\ndata: {") and body.endswith(
            b'data: {"type": "message_stop"}\n\n'
        )
        await until(lambda: len(site.bench.sink.examples) == 1)
        assert site.bench.sink.examples[0].response == "Paris"
        assert (spent(site).input_tokens, spent(site).output_tokens) == (12, 3)

    async def test_a_piece_is_not_held_back(self, web: aiohttp.ClientSession, site: Site) -> None:
        site.stub.faults.append("stream-wait")
        async with web.post(site.url + PATH, json=request(stream=True)) as response:
            async with asyncio.timeout(10):
                seen = b""
                while b"content_block_delta" not in seen:
                    seen += await response.content.readany()
            # The upstream has not ended yet.
            assert b"message_stop" not in seen
            site.stub.hold.set()
            assert b"message_stop" in await response.content.read()

    async def test_a_client_that_hangs_up_ends_the_upstreams_work_and_is_booked(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        site.stub.text = "word " * 100
        site.stub.faults.append("stream-wait")
        async with web.post(site.url + PATH, json=request(stream=True)) as response:
            async with asyncio.timeout(10):
                await response.content.readany()
        await until(lambda: site.stub.hung_up == 1)
        await until(lambda: spent(site).input_tokens == 12)
        assert spent(site).unknown_calls == 0
        # What had been sent of the 500 letters, by four letters a token.
        assert 1 <= spent(site).output_tokens <= 150
        assert site.bench.sink.examples == []

    @pytest.mark.parametrize("fault", ["stream-drop", "stream-end"])
    async def test_a_stream_that_breaks_between_two_events_ends_with_an_error_event(
        self, web: aiohttp.ClientSession, site: Site, fault: str
    ) -> None:
        site.stub.faults.append(fault)
        response, body = await post(web, site, request(stream=True))
        assert response.status == 200
        *_, last, empty = body.split(b"\n\n")
        name, data = last.decode().split("\n")
        assert (name, empty) == ("event: error", b"")
        assert error_of(data.removeprefix("data: ").encode())[0] == "api_error"
        await until(lambda: spent(site).input_tokens == 12)
        assert site.bench.sink.examples == []

    async def test_an_error_event_of_the_upstream_is_passed_on_alone(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        site.stub.faults.append("stream-error")
        _, body = await post(web, site, request(stream=True))
        assert body.count(b"event: error") == 1 and b"overloaded_error" in body

    async def test_within_an_event_only_the_broken_connection_says_so(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            raw.replies.append(STREAM_HEAD + chunk(b'event: message_start\ndata: {"type":"mess'))
            with pytest.raises(aiohttp.ClientPayloadError):
                await post(web, site, request(stream=True))
            await until(lambda: spent(site).unknown_calls == 1)


class TestFaults:
    @pytest.mark.parametrize("status", [429, 500, 529])
    async def test_an_error_of_the_upstream_is_passed_on_as_it_is(
        self, web: aiohttp.ClientSession, site: Site, status: int
    ) -> None:
        site.stub.faults.append(f"{status}:7")
        response, body = await post(web, site, request())
        assert response.status == status
        assert error_of(body)[1] == f"told to fail with {status}"
        assert response.headers.get("retry-after") == (None if status == 500 else "7")
        assert spent(site).calls == 1 and spent(site).unknown_calls == 0
        assert site.bench.monitor.failed == 1

    async def test_a_dropped_connection_is_an_error_that_may_pass(self, web: aiohttp.ClientSession, site: Site) -> None:
        site.stub.faults.append("drop")
        response, body = await post(web, site, request())
        assert response.status == 502 and error_of(body)[0] == "api_error"
        assert response.headers["x-should-retry"] == "true"
        # Nobody knows whether it was billed.
        assert spent(site).unknown_calls == 1

    async def test_a_body_that_breaks_off_is_an_error(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            raw.replies.append(JSON_HEAD + b"content-length: 500\r\n\r\n{")
            response, body = await post(web, site, request())
            assert response.status == 502 and error_of(body)[0] == "api_error"

    async def test_an_upstream_that_is_not_there_is_not_billed(self, web: aiohttp.ClientSession) -> None:
        gone = Upstream(name="gone", protocol="messages", base_url="http://127.0.0.1:9", model="m")
        async with serve_site(more=[gone]) as site:
            site.stub.faults.append("529")
            response, _ = await post(web, site, request())
            # The second one was asked, and its reply is what the client gets.
            assert response.status == 529 and spent(site).unknown_calls == 0

    async def test_the_next_upstream_is_asked_where_one_fails(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            raw.replies.append(b"HTTP/1.1 529 X\r\ncontent-length: 2\r\n\r\n{}")
            response, body = await post(web, site, request("claude-shammah-teacher"))
            assert response.status == 200 and json.loads(body)["model"] == TEACHER_MODEL
            # Each was asked for its own model.
            assert b'"model": "m"' in raw.received[0] and site.stub.requests[0]["model"] == TEACHER_MODEL

    async def test_a_request_that_is_wrong_is_asked_of_nobody_else(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            raw.replies.append(b"HTTP/1.1 400 X\r\ncontent-length: 2\r\n\r\n{}")
            response, body = await post(web, site, request())
            assert (response.status, body, site.stub.calls) == (400, b"{}", [])

    async def test_a_caller_may_prefer_a_labelled_answer_to_an_error(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        site.forward()
        for fault in ("529", "drop"):
            site.stub.faults.append(fault)
            response, body = await post(web, site, request("claude-shammah-auto"), x_shammah_allow_degraded="1")
            assert response.status == 200 and response.headers["x-shammah-route"] == "degraded"
            assert json.loads(body)["content"][0]["text"] == "Paris"


class TestRouting:
    async def test_a_local_answer_costs_nothing_and_is_booked_as_saved(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        response, body = await post(web, site, request("claude-shammah-auto"))
        assert response.headers["x-shammah-route"] == "local" and site.stub.calls == []
        query_id = response.headers["x-shammah-query-id"]
        assert json.loads(body)["id"] == f"msg_{query_id}" and response.headers["request-id"] == f"req_{query_id}"
        assert spent(site).calls == 0 and [one.answers for one in site.ledger.summary().saved.values()] == [1]

    async def test_a_forwarded_one_is_renamed_and_nothing_else(self, web: aiohttp.ClientSession, site: Site) -> None:
        site.forward()
        body = json.dumps(request("claude-shammah-auto"), indent=2).encode()
        response, _ = await post(web, site, body)
        assert site.stub.calls[0].body == body.replace(b"claude-shammah-auto", TEACHER_MODEL.encode())
        assert response.headers["x-shammah-route"] == "teacher"
        assert response.headers["x-shammah-reason"] == "low_quality"
        assert response.headers["x-shammah-category"] == "capitals"
        assert response.headers["x-shammah-release"] == site.bench.releases.current.id  # type: ignore[union-attr]
        await until(lambda: len(site.bench.sink.examples) == 1)
        assert site.bench.sink.examples[0].student_attempt == "Paris"

    async def test_the_text_of_a_query_that_speaks_of_us_is_not_our_name(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        body = json.dumps(request(messages=[{"role": "user", "content": 'say "model": "shammah-auto"'}])).encode()
        await post(web, site, body)
        assert site.stub.calls[0].body == body

    async def test_other_ids_may_mean_auto(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(http_auto_models=frozenset({TEACHER_MODEL})) as site:
            response, _ = await post(web, site, request())
            assert response.headers["x-shammah-route"] == "local"
            site.forward()
            await post(web, site, request(messages=[{"role": "user", "content": "Another question?"}]))
            assert site.stub.requests[0]["model"] == TEACHER_MODEL

    @pytest.mark.parametrize(
        "changes",
        [
            {"tools": [{"name": "t", "description": "d", "input_schema": {"type": "object"}}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 40_000}]}]},
            {"thread": {"type": "create"}},
        ],
    )
    async def test_what_the_student_can_not_do_goes_to_the_teacher(
        self, web: aiohttp.ClientSession, site: Site, changes: dict[str, Any]
    ) -> None:
        headers = {"anthropic_beta": "message-threads-2026-08-12"} if "thread" in changes else {}
        response, _ = await post(web, site, request("claude-shammah-auto", **changes), **headers)
        assert (response.status, response.headers["x-shammah-reason"]) == (200, "uncertified")
        assert site.bench.roles.calls == [] and len(site.stub.seen) == 1

    async def test_a_long_body_is_not_looked_at(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(http_routed_max_bytes=1024) as site:
            long = [{"role": "user", "content": "x" * 2000}, {"role": "assistant", "content": "y"}]
            turns = [*long, {"role": "user", "content": QUESTION}]
            response, _ = await post(web, site, request("claude-shammah-auto", messages=turns))
            assert response.headers["x-shammah-reason"] == "uncertified"
            assert "generate" not in dict(site.bench.roles.calls)

    async def test_a_thread_on_a_local_name_is_refused_in_the_word_that_the_sdk_goes_by(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        response, body = await post(web, site, request("claude-shammah-local", thread={"type": "create"}))
        assert response.status == 400
        details = json.loads(body)["error"]["details"]
        assert details == {"error_code": "thread_unsupported_request", "unsupported": []}

    async def test_what_a_local_name_can_not_do_is_named(self, web: aiohttp.ClientSession, site: Site) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
        turns = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
        response, body = await post(web, site, request("claude-shammah-local", messages=turns))
        assert response.status == 400 and "image blocks" in error_of(body)[1]
        assert json.loads(body)["error"]["details"]["unsupported"] == ["image blocks"]

    async def test_a_weak_local_answer_is_labelled(self, web: aiohttp.ClientSession, site: Site) -> None:
        site.forward()
        response, body = await post(web, site, request("claude-shammah-local", stream=True))
        assert response.headers["x-shammah-route"] == "degraded" and b"message_stop" in body
        response, body = await post(web, site, request("claude-shammah-auto"), x_shammah_local_only="1")
        assert response.status == 400 and "not good enough" in error_of(body)[1]
        assert site.stub.calls == []

    async def test_release_and_alpha_by_name_and_by_header(self, web: aiohttp.ClientSession, site: Site) -> None:
        release = site.bench.releases.current.id  # type: ignore[union-attr]
        for model, headers in (
            (f"shammah-auto@{release}", {}),
            ("shammah-auto", {"x_shammah_release": release}),
        ):
            response, _ = await post(web, site, request(model), **headers)
            assert response.headers["x-shammah-release"] == release
        response, body = await post(web, site, request("shammah-auto@01ARZ3NDEKTSV4RRFFQ69G5FAV"))
        assert response.status == 404 and error_of(body)[0] == "not_found_error"
        response, _ = await post(web, site, request("shammah-auto-0.9"))
        assert response.status == 400


class TestNoUpstream:
    async def test_a_forwarded_query_is_answered_in_the_protocol(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(bench=Bench(teacher=PlainTeacher("Rome")), bytes_taken=False) as site:
            site.forward()
            for model in ("claude-shammah-auto", "claude-shammah-teacher", TEACHER_MODEL):
                response, body = await post(web, site, request(model))
                message = json.loads(body)
                assert (message["content"][0]["text"], message["model"]) == ("Rome", "plain-1")
                assert response.headers["x-shammah-route"] == "teacher"
            _, body = await post(web, site, request(TEACHER_MODEL, stream=True))
            assert b"event: message_stop" in body and b"Rome" in body

    async def test_an_unknown_model_is_not_found(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(bytes_taken=False) as site:
            response, body = await post(web, site, request("gpt-9"))
            assert response.status == 404 and error_of(body) == ("not_found_error", "model: gpt-9")

    async def test_tools_and_threads_are_refused_and_counting_is_not_offered(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(bytes_taken=False) as site:
            response, body = await post(web, site, request(tools=[{"name": "t"}]))
            assert response.status == 400 and "tools" in error_of(body)[1]
            response, body = await post(web, site, request(thread={"type": "create"}))
            assert json.loads(body)["error"]["details"]["error_code"] == "thread_unsupported_request"
            for path in ("/v1/messages/count_tokens", "/v1/messages/batches"):
                response, body = await post(web, site, request(), path)
                assert response.status == 501 and error_of(body)[0] == "api_error"

    async def test_without_any_teacher_it_says_so(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(bench=Bench(no_teacher=True), bytes_taken=False) as site:
            response, body = await post(web, site, request())
            assert response.status == 503 and "no teacher is set up" in error_of(body)[1]


class TestMoney:
    async def test_at_a_cap_it_is_refused_in_the_word_of_the_protocol(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(caps={"calls_total": 1}) as site:
            assert (await post(web, site, request()))[0].status == 200
            response, body = await post(web, site, request())
            assert response.status == 402 and error_of(body)[0] == "billing_error"
            assert response.headers["x-should-retry"] == "false" and len(site.stub.calls) == 1

    async def test_at_a_cap_a_labelled_answer_may_be_set_up(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(bench=Bench(at_cap="degrade"), caps={"calls_total": 0}) as site:
            site.forward()
            response, _ = await post(web, site, request("claude-shammah-auto"))
            assert response.status == 200
            assert (response.headers["x-shammah-route"], response.headers["x-shammah-reason"]) == ("degraded", "budget")

    async def test_a_cap_in_usd_looks_at_the_size_of_a_request_first(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(caps={"usd_total": Decimal("0.01")}) as site:
            response, _ = await post(web, site, request(max_tokens=20))
            assert response.status == 200
            response, body = await post(web, site, request(max_tokens=20_000))
            assert response.status == 402 and "usd_total" in error_of(body)[1]


class TestBadInput:
    async def test_no_token_and_a_wrong_one(self, site: Site) -> None:
        async with aiohttp.ClientSession(headers={"anthropic-version": "2026-10-21"}) as stranger:
            for headers in ({}, {"x_api_key": "wrong"}, {"authorization": "Bearer wrong"}):
                response, body = await post(stranger, site, request(), **headers)
                assert response.status == 401 and error_of(body)[0] == "authentication_error"
            response, _ = await post(stranger, site, request(), x_api_key=TOKEN)
            assert response.status == 200

    @pytest.mark.parametrize("version", ["", "2022-01-01"])
    async def test_an_unknown_version(self, web: aiohttp.ClientSession, site: Site, version: str) -> None:
        response, body = await post(web, site, request(), anthropic_version=version)
        assert response.status == 400 and "anthropic-version" in error_of(body)[1] and site.stub.calls == []

    async def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * 10_000

        for data in (b" " * 100_001, pieces()):
            async with web.post(site.url + PATH, data=data) as response:
                assert response.status == 413 and error_of(await response.read())[0] == "request_too_large"
        assert site.stub.calls == []

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b'{"model": "shammah-local", ', "not valid JSON"),
            (b'["shammah-local"]', "must be a JSON object"),
            (b'{"m": "shammah"}', "model: Field required"),
            (
                b'{"model": "shammah-local", "messages": [{"role": "user", "content": "x"}]}',
                "max_tokens: Field required",
            ),
            (b'{"model": "shammah-local", "max_tokens": 5}', "messages: Field required"),
            (b'"shammah' + b"[" * 50_000, "not valid JSON"),
            (b'{"shammah":' + b"[" * 50_000 + b"]" * 50_000 + b"}"[:0], "nested too deeply"),
        ],
    )
    async def test_a_malformed_body_that_concerns_us(self, web: aiohttp.ClientSession, body: bytes, told: str) -> None:
        async with serve_site() as site:
            response, got = await post(web, site, body)
            assert response.status == 400 and error_of(got)[0] == "invalid_request_error"
            assert told in error_of(got)[1]

    async def test_an_unknown_name_of_ours(self, web: aiohttp.ClientSession, site: Site) -> None:
        response, body = await post(web, site, request("claude-shammah-smart"))
        assert response.status == 404 and error_of(body)[0] == "not_found_error"

    async def test_a_malformed_request_for_auto_is_the_upstreams_to_refuse(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        response, body = await post(web, site, {"model": "claude-shammah-auto", "messages": []})
        assert response.status == 400 and len(site.stub.calls) == 1 and "max_tokens" in error_of(body)[1]

    async def test_paths_and_methods_that_nobody_has(self, web: aiohttp.ClientSession, site: Site) -> None:
        async with web.get(site.url + "/v2/nothing") as response:
            assert response.status == 404 and error_of(await response.read())[0] == "not_found_error"
        async with web.delete(site.url + PATH) as response:
            assert response.status == 405 and response.headers["allow"] == "POST"
            assert error_of(await response.read())[0] == "invalid_request_error"
        async with web.get(site.url + "/v1/chat/completions") as response:
            assert (await response.json())["error"]["code"] == "method_not_allowed"

    async def test_the_root_is_open_to_probes(self, site: Site) -> None:
        async with aiohttp.ClientSession() as stranger:
            async with stranger.head(site.url + "/") as response:
                assert response.status == 200
            async with stranger.get(site.url + "/v1/models") as response:
                assert response.status == 401


class TestTheClientsOwnKey:
    async def test_it_is_passed_on_and_its_faults_are_not_held_against_the_upstream(self) -> None:
        async with serve_messages() as stub, UpstreamClient(one_upstream(stub)) as client:
            bench = Bench()
            door = Door(
                FrontDesk(bench.cascade, bench.monitor, FeedbackDesk(bench.sink, daily_weight=1)),
                Gatekeeper(TokenTable({}), let_anybody=True),
                HttpSettings.model_validate({"http_credentials": "client"}),
                client,
            )
            server = HttpServer(make_app(door), drain_seconds=1)
            await server.start("127.0.0.1", 0)
            headers = {"anthropic-version": "2026-10-21"}
            url = f"http://127.0.0.1:{server.port}{PATH}"
            async with aiohttp.ClientSession(headers=headers) as web:
                for _ in range(3):
                    async with web.post(url, json=request(), headers={"x-api-key": "wrong"}) as response:
                        assert response.status == 401 and error_of(await response.read())[1] == "invalid x-api-key"
                async with web.post(url, json=request(), headers={"authorization": f"Bearer {stub.key}"}) as response:
                    assert response.status == 200
                async with web.post(url, json=request()) as response:
                    assert response.status == 401
            await server.close()
        assert stub.calls[-1].headers["authorization"] == f"Bearer {stub.key}" and len(stub.calls) == 4


def one_upstream(stub: MessagesStub) -> Upstreams:
    own = Upstream(name="a", protocol="messages", base_url=stub.url, model=TEACHER_MODEL)
    return Upstreams([(own, Breaker("a", BreakerLimits(failures=2)))], only_first=True)


class TestOtherRoutes:
    async def test_tokens_are_counted_by_the_upstream_and_cost_nothing(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        body = {"model": "claude-shammah-auto", "messages": [{"role": "user", "content": QUESTION}]}
        response, got = await post(web, site, body, "/v1/messages/count_tokens")
        assert response.status == 200 and json.loads(got)["input_tokens"] > 0
        assert spent(site).calls == 0

    async def test_a_batch_has_its_results_on_our_host_and_is_booked_once(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        path = "/v1/messages/batches"
        rows = [{"custom_id": f"c{index}", "params": request()} for index in range(2)]
        _, body = await post(web, site, {"requests": rows}, path)
        batch = json.loads(body)
        while batch["processing_status"] != "ended":
            async with web.get(f"{site.url}{path}/{batch['id']}") as response:
                batch = await response.json()
        assert batch["results_url"] == f"{site.url}{path}/{batch['id']}/results"
        for _ in range(2):
            async with web.get(batch["results_url"]) as response:
                assert len((await response.read()).splitlines()) == 2
        await until(lambda: spent(site).output_tokens == 6)
        assert spent(site).calls == 1
        async with web.get(site.url + path) as response:
            assert site.url in (await response.json())["data"][0]["results_url"]

    async def test_nobody_sees_the_batches_of_another_caller(self, web: aiohttp.ClientSession, site: Site) -> None:
        path = "/v1/messages/batches"
        rows = {"requests": [{"custom_id": "c", "params": request()}]}
        _, body = await post(web, site, rows, path)
        mine = json.loads(body)["id"]
        headers = {"x-api-key": OTHER_TOKEN, "anthropic-version": "2026-10-21"}
        async with aiohttp.ClientSession(headers=headers) as other:
            _, body = await post(other, site, rows, path)
            theirs = json.loads(body)["id"]
            for method, end in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
                async with other.request(method, f"{site.url}{path}/{mine}{end}") as response:
                    assert response.status == 404 and error_of(await response.read())[0] == "not_found_error"
            async with other.get(site.url + path) as response:
                assert [row["id"] for row in (await response.json())["data"]] == [theirs]
            async with other.get(f"{site.url}{path}/{theirs}") as response:
                assert response.status == 200

    async def test_a_batch_for_our_names_is_refused(self, web: aiohttp.ClientSession, site: Site) -> None:
        rows = [{"custom_id": "c", "params": request("claude-shammah-auto")}]
        response, body = await post(web, site, {"requests": rows}, "/v1/messages/batches")
        assert response.status == 400 and "name one of its own models" in error_of(body)[1]


def turns(*, later: bool = True, **changes: Any) -> dict[str, Any]:
    """A conversation: its first turn, or with an answer and a second one."""
    first = {"role": "user", "content": QUESTION}
    more = [{"role": "assistant", "content": "Paris"}, {"role": "user", "content": "And of Italy?"}]
    return request("claude-shammah-auto", messages=[first, *(more if later else [])], **changes)


class TestConversations:
    async def test_after_a_turn_with_tools_the_teacher_keeps_the_conversation(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        response, _ = await post(web, site, turns())
        assert response.headers["x-shammah-route"] == "local"
        tool = {"name": "t", "description": "d", "input_schema": {"type": "object"}}
        await post(web, site, turns(tools=[tool]))
        response, _ = await post(web, site, turns())
        assert (response.headers["x-shammah-route"], response.headers["x-shammah-reason"]) == (
            "teacher",
            "conversation",
        )

    async def test_a_session_names_the_conversation_whatever_it_begins_with(
        self, web: aiohttp.ClientSession, site: Site
    ) -> None:
        await post(web, site, request(system="be brief", thinking={"type": "adaptive"}), x_claude_code_session_id="s1")
        for session, route in (("s1", "teacher"), ("s2", "local")):
            response, _ = await post(web, site, turns(), x_claude_code_session_id=session)
            assert response.headers["x-shammah-route"] == route


class TestOtherTeachers:
    async def test_one_that_takes_no_bytes_answers_where_the_upstreams_fail(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(teachers=("anthropic", "plain")) as site:
            site.forward()
            site.stub.faults.append("529")
            response, body = await post(web, site, request("claude-shammah-auto"))
            assert response.status == 200 and json.loads(body)["content"][0]["text"] == "Paris"
            assert response.headers["x-shammah-route"] == "teacher"
            assert len(site.bench.port.asked) == 1

    async def test_nobody_stands_for_a_model_that_the_caller_named(self, web: aiohttp.ClientSession) -> None:
        async with serve_site(teachers=("anthropic", "plain")) as site:
            site.stub.faults.append("529")
            response, _ = await post(web, site, request())
            assert response.status == 529 and site.bench.port.asked == []

    async def test_who_failed_before_is_told(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            raw.replies.append(b"HTTP/1.1 529 Overloaded\r\ncontent-length: 2\r\n\r\n{}")
            response, _ = await post(web, site, request())
            assert response.status == 200 and response.headers["x-shammah-passed-over"] == "raw"


class TestServer:
    async def test_a_taken_port_is_an_error_or_another_one(self, site: Site) -> None:
        taken = int(site.url.rsplit(":", 1)[1])
        with pytest.raises(UnavailableError, match="SHAMMAH_GATEWAY_HTTP_PORT"):
            await make_server().start("127.0.0.1", taken)
        server = make_server()
        await server.start("127.0.0.1", taken, or_any=True)
        try:
            assert server.port not in (0, taken)
        finally:
            await server.close()

    async def test_a_stop_waits_for_a_running_request(self, web: aiohttp.ClientSession) -> None:
        async with serve_site() as site:
            site.stub.faults.append("stream-wait")
            async with web.post(site.url + PATH, json=request(stream=True)) as response:
                await response.content.readany()
                site.stub.hold.set()
                assert b"message_stop" in await response.content.read()

    async def test_connections_to_an_upstream_are_used_again(self, web: aiohttp.ClientSession) -> None:
        async with serve_raw() as raw, serve_site(more=[upstream(raw)]) as site:
            for _ in range(3):
                raw.replies.append(JSON_HEAD + b"content-length: 2\r\n\r\n{}")
                await post(web, site, request())
            assert raw.connections == 1 and len(raw.received) == 3


def make_server() -> HttpServer:
    from starlette.applications import Starlette

    return HttpServer(Starlette(), drain_seconds=1)
