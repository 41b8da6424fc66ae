"""The Anthropic door over real sockets: bad input, the client's own key, other routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import uvloop
from shammah_chassis.tokens import TokenTable
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http.app import make_app
from shammah_gateway.http.auth import Gatekeeper
from shammah_gateway.http.door import Door
from shammah_gateway.http.serve import HttpServer
from shammah_gateway.http.settings import HttpSettings
from shammah_gateway.http.upstream import UpstreamClient
from shammah_gateway.monitor import Monitor
from shammah_gateway.teachers.breaker import Breaker, BreakerLimits
from shammah_gateway.teachers.upstreams import Upstream, Upstreams
from support.gateway import Bench
from support.http_door import PATH, QUESTION, error_of, post, request, spent
from support.http_site import OTHER_TOKEN, TEACHER_MODEL, TOKEN, Site, serve_site
from support.messages_stub import MessagesStub, serve_messages
from support.services import until


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The loop that the gateway runs in: its transports are not asyncio's."""
    return uvloop.EventLoopPolicy()


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


class TestHalfOfASurrogatePair:
    """Half an emoji: JSON holds it, UTF-8 does not."""

    async def test_it_is_forwarded_by_its_bytes_and_counted(self, web: aiohttp.ClientSession, site: Site) -> None:
        before = site.bench.monitor.queries
        for body in (
            request("shammah-auto", messages=[{"role": "user", "content": "what is \ud83d"}]),
            request("shammah-auto", system="you are \ud83d"),
        ):
            response, _ = await post(web, site, body)
            assert response.status == 200
            response, _ = await post(web, site, request())  # on the same connection
            assert response.status == 200
        assert site.bench.monitor.queries == before + 4

    async def test_the_local_model_alone_can_not_read_it(self, web: aiohttp.ClientSession, site: Site) -> None:
        body = request(model="shammah-local", messages=[{"role": "user", "content": "what is \ud83d"}])
        response, told = await post(web, site, body)
        assert response.status == 400 and "surrogate" in error_of(told)[1]

    @pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_paid_answer_with_one_is_given_counted_and_not_learned(
        self, web: aiohttp.ClientSession, site: Site, path: str, stream: bool
    ) -> None:
        site.forward()
        site.stub.text = "half \ud83d"
        response, body = await post(web, site, request("shammah-auto", stream=stream), path)
        assert response.status == 200 and b"\\ud83d" in body
        await until(lambda: site.bench.monitor.lost_examples == 1)
        await until(lambda: site.bench.monitor.forwarded == 1)
        assert site.bench.sink.examples == []


@pytest.mark.parametrize("fault", ["learning", "counting"])
@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_after_the_answer_neither_adds_to_it_nor_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, web: aiohttp.ClientSession, site: Site, stream: bool, path: str, fault: str
) -> None:
    site.forward()
    faults = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal faults
        faults += 1
        raise RuntimeError("a fault of ours")

    if fault == "learning":
        monkeypatch.setattr(site.bench.sink, "record", fail)
    else:
        monkeypatch.setattr(Monitor, "add_answer", fail)
    # On one connection: a second answer to the first request would be taken for that of the next.
    for _ in range(3):
        response, body = await post(web, site, request("shammah-auto", stream=stream), path)
        assert response.status == 200 and body.endswith(b"\n\n" if stream else b"}") and b"internal" not in body
        assert stream or site.stub.text.encode() in body
    await until(lambda: faults == 3)
    assert site.bench.monitor.lost_examples == (3 if fault == "learning" else 0)


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
async def test_an_answer_of_a_teacher_that_takes_no_bytes_outlives_such_a_fault(
    web: aiohttp.ClientSession, path: str
) -> None:
    async with serve_site(bytes_taken=False) as site:
        site.forward()
        site.bench.sink.error = RuntimeError("a fault of ours")
        response, body = await post(web, site, request("shammah-auto"), path)
        assert response.status == 200 and b"Paris" in body
        assert (site.bench.monitor.forwarded, site.bench.monitor.lost_examples) == (1, 1)
