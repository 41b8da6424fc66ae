"""The Anthropic door over real sockets: local answers, money, conversations, other teachers, the server."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import uvloop
from shammah_chassis.errors import UnavailableError
from shammah_gateway.http.serve import HttpServer
from support.gateway import Bench, PlainTeacher
from support.http_door import PATH, QUESTION, error_of, post, request, spent, upstream
from support.http_site import TEACHER_MODEL, Site, serve_site
from support.raw_upstream import JSON_HEAD, serve_raw
from support.services import until


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the gateway runs in: its transports are not asyncio's."""
    return uvloop.EventLoopPolicy()


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
