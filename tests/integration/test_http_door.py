"""The Anthropic door over real sockets: bytes through, streams, every kind of fault."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
import uvloop
from shammah_gateway.teachers.upstreams import Upstream
from support.http_door import PATH, QUESTION, error_of, post, request, spent, upstream
from support.http_site import TEACHER_MODEL, Site, serve_site
from support.raw_upstream import JSON_HEAD, STREAM_HEAD, chunk, serve_raw
from support.services import until


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the gateway runs in: its transports are not asyncio's."""
    return uvloop.EventLoopPolicy()


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
            assert "set-cookie" not in response.headers
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
