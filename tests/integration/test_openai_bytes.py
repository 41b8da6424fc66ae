"""The OpenAI door in front of a server of the same protocol: bytes go through, the money and the example are seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from shammah_gateway.teachers.upstreams import Upstream
from support.http_site import TOKEN, Site, serve_site
from support.messages_http import Call, HungUpError, Wire, serve

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
HEADERS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3}


@dataclass
class Server:
    """A server of chat completions; `fault` is for each request: a status, "end", "drop" or "wait"."""

    key: str = "open-key"
    fault: str = ""
    calls: list[Call] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: int = 0

    async def handle(self, call: Call, wire: Wire) -> None:
        self.calls.append(call)
        headers = {"content-type": "application/json", "x-served-by": "gpu-7", "x-request-id": "theirs"}
        if call.headers.get("authorization") != f"Bearer {self.key}":
            await wire.reply(401, b'{"error": {"message": "wrong key"}}', headers)
        elif self.fault.isdigit():
            await wire.reply(int(self.fault), b'{"error":  {"message": "as told"}}', headers)
        elif call.json.get("stream"):
            await self.stream(wire)
        elif self.fault == "drop":
            wire.drop()
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
            reply = {"id": "theirs", "object": "chat.completion", "created": 1, "model": call.json["model"]}
            await wire.reply(200, json.dumps({**reply, "choices": [choice], "usage": USAGE}).encode(), headers)

    async def stream(self, wire: Wire) -> None:
        await wire.begin(200, {"content-type": "text/event-stream"})
        for delta, finish in (({"role": "assistant"}, None), ({"content": "Paris"}, None), ({}, "stop")):
            if finish and self.fault == "end":
                break
            if finish and self.fault == "wait":
                try:
                    await wire.wait_for_hang_up()
                except HungUpError:
                    self.hung_up += 1
                    raise
            await wire.piece(frame({"model": "open-8b", "choices": [choose(delta, finish)]}))
        else:
            await wire.piece(frame({"model": "open-8b", "choices": [], "usage": USAGE}) + b"data: [DONE]\n\n")
        await wire.end()


def choose(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def frame(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'created': 1, **chunk})}\n\n".encode()


@asynccontextmanager
async def open_both(**settings: Any) -> AsyncIterator[tuple[Site, Server]]:
    server = Server()
    async with serve(server.handle) as url:
        upstream = Upstream(
            name="openai",
            protocol="chat",
            base_url=f"{url}/v1",
            headers={"authorization": f"Bearer {server.key}"},
            model="open-8b",
        )
        async with serve_site(more=[upstream], teachers=("openai",), **settings) as site:
            yield site, server


@pytest.fixture
async def both() -> AsyncIterator[tuple[Site, Server]]:
    async with open_both() as opened:
        yield opened


def connect(site: Site) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{site.url}/v1", api_key=TOKEN, max_retries=0)


async def wait_for(probe: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not probe():
            await asyncio.sleep(0.01)


async def test_the_body_goes_through_but_for_our_name_of_the_model(both: tuple[Site, Server]) -> None:
    site, server = both
    site.forward()
    body = b'{"messages":[{"role":"user","content":"capital of France?"}] , "model":"shammah-auto","top_k":5, "n":2}'
    async with httpx2.AsyncClient() as plain:
        told = await plain.post(f"{site.url}/v1/chat/completions", content=body, headers=HEADERS)
    assert server.calls[0].body == body.replace(b"shammah-auto", b"open-8b")
    assert server.calls[0].path == "/v1/chat/completions"
    assert told.json()["id"] == "theirs" and told.headers["x-served-by"] == "gpu-7"
    assert told.headers["x-shammah-route"] == "teacher" and told.headers["x-request-id"].startswith("req_")
    # A field that nobody here knows: it is neither answered locally nor learned from.
    assert site.bench.roles.calls == [] and site.bench.sink.examples == []
    assert site.ledger.summary().spent["answer"].input_tokens == 12


async def test_a_good_local_answer_is_not_forwarded(both: tuple[Site, Server]) -> None:
    site, server = both
    async with connect(site) as client:
        reply = await client.chat.completions.create(model="shammah-auto", messages=QUESTION)
    assert reply.choices[0].message.content == "Paris" and server.calls == []


async def test_a_forwarded_answer_is_learned(both: tuple[Site, Server]) -> None:
    site, _ = both
    site.forward()
    async with connect(site) as client:
        await client.chat.completions.create(model="shammah-auto", messages=QUESTION)
    assert [example.response for example in site.bench.sink.examples] == ["Paris"]
    assert site.bench.sink.examples[0].provenance.teacher_model == "open-8b"


async def test_an_answer_that_a_stop_sequence_may_have_cut_is_not_learned(both: tuple[Site, Server]) -> None:
    site, _ = both
    site.forward()
    async with connect(site) as client:
        await client.chat.completions.create(model="shammah-auto", messages=QUESTION, stop=["."])
    await wait_for(lambda: site.bench.monitor.forwarded == 1)
    assert site.bench.sink.examples == []


async def test_a_stream_goes_through_and_is_booked_and_learned(both: tuple[Site, Server]) -> None:
    site, _ = both
    site.forward()
    async with connect(site) as client:
        stream = await client.chat.completions.create(model="shammah-auto", messages=QUESTION, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Paris"
    await wait_for(lambda: site.bench.sink.examples)
    assert site.ledger.summary().spent["answer"].output_tokens == 3


async def test_a_stream_that_ends_early_is_an_error_and_no_example(both: tuple[Site, Server]) -> None:
    site, server = both
    site.forward()
    server.fault = "end"
    async with connect(site) as client:
        stream = await client.chat.completions.create(model="shammah-auto", messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError, match="ended before"):
            [chunk async for chunk in stream]
    await wait_for(lambda: site.ledger.summary().unknown_calls)
    assert site.bench.sink.examples == []


async def test_a_client_that_hangs_up_ends_the_servers_work(both: tuple[Site, Server]) -> None:
    site, server = both
    server.fault = "wait"
    async with connect(site) as client:
        stream = await client.chat.completions.create(model="shammah-teacher", messages=QUESTION, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
    await wait_for(lambda: server.hung_up)
    await wait_for(lambda: site.ledger.summary().unknown_calls)


async def test_an_error_of_the_server_goes_through_as_it_is(both: tuple[Site, Server]) -> None:
    site, server = both
    server.fault = "400"
    async with httpx2.AsyncClient() as plain:
        told = await plain.post(
            f"{site.url}/v1/chat/completions", json={"model": "x", "messages": QUESTION}, headers=HEADERS
        )
    assert (told.status_code, told.content) == (400, b'{"error":  {"message": "as told"}}')
    assert site.ledger.summary().spent["answer"].input_tokens == 0


async def test_a_refusal_of_the_gateways_key_is_not_blamed_on_the_caller(both: tuple[Site, Server]) -> None:
    site, server = both
    server.key = "another"
    async with connect(site) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="shammah-teacher", messages=QUESTION)
    assert caught.value.status_code == 502 and caught.value.code == "teacher_auth"


async def test_a_dropped_socket_is_an_error_of_the_server(both: tuple[Site, Server]) -> None:
    site, server = both
    server.fault = "drop"
    async with connect(site) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="shammah-teacher", messages=QUESTION)


async def test_a_number_of_choices_that_is_none_is_refused_under_a_cap() -> None:
    async with open_both(caps={"usd_total": 10}) as (site, server), connect(site) as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="claude-sonnet-5-5", messages=QUESTION, n=1000)
        assert server.calls == []
