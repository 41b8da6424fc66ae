"""Connections to servers behind us: kept, given up, tunnelled; replies of every form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from multidict import CIMultiDict
from shammah_gateway.http import connection, upstream
from shammah_gateway.http.upstream import UpstreamBrokenError, UpstreamClient
from shammah_gateway.teachers.upstreams import Upstreams
from support.raw_upstream import JSON_HEAD, STREAM_HEAD, RawUpstream, chunk, serve_raw

EMPTY: CIMultiDict[str] = CIMultiDict()
WHOLE = JSON_HEAD + b"content-length: 2\r\n\r\n{}"


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture
async def raw() -> AsyncIterator[RawUpstream]:
    async with serve_raw() as server:
        yield server


@asynccontextmanager
async def client(**changes: float) -> AsyncIterator[UpstreamClient]:
    async with UpstreamClient(Upstreams([]), **changes) as opened:
        yield opened


async def ask(opened: UpstreamClient, raw: RawUpstream, reply: bytes, path: str = "/v1/messages") -> tuple[int, bytes]:
    raw.replies.append(reply)
    got = await opened.send("POST", raw.url, path, EMPTY, b"{}")
    return got.status, await got.read()


async def test_a_request_is_written_as_it_is(raw: RawUpstream) -> None:
    raw.replies.append(WHOLE)
    async with client() as opened:
        headers = CIMultiDict({"x-a": "1"})
        headers.add("x-a", "2")
        reply = await opened.send("POST", raw.url + "/base/", "/v1/messages?beta=true", headers, b"{}")
        assert await reply.read() == b"{}"
    host = raw.url.removeprefix("http://").encode()
    expected = (
        b"POST /base/v1/messages?beta=true HTTP/1.1\r\nhost: %s\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert raw.received == [expected % host]


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (WHOLE, b"{}"),
        (STREAM_HEAD + chunk(b"one") + chunk(b"two") + b"0\r\n\r\n", b"onetwo"),
        # Without a length the end of the connection ends it.
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_every_form_of_body_is_read(raw: RawUpstream, reply: bytes, body: bytes) -> None:
    async with client() as opened:
        assert (await ask(opened, raw, reply))[1] == body


async def test_a_connection_is_used_again_and_by_one_request_at_a_time(raw: RawUpstream) -> None:
    async with client() as opened:
        for _ in range(3):
            await ask(opened, raw, WHOLE)
        assert raw.connections == 1
        await asyncio.gather(*(ask(opened, raw, WHOLE) for _ in range(4)))
        assert raw.connections == 4
        assert len(raw.received) == 7


async def test_a_stale_connection_is_not_used(raw: RawUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client() as opened:
        await ask(opened, raw, WHOLE)
        monkeypatch.setattr(upstream, "KEEP_SECONDS", 0.0)
        await ask(opened, raw, WHOLE)
        assert raw.connections == 2


async def test_a_connection_that_the_server_closes_is_not_used_again(raw: RawUpstream) -> None:
    async with client() as opened:
        closing = JSON_HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\n{}"
        assert await ask(opened, raw, closing) == (200, b"{}")
        assert await ask(opened, raw, WHOLE) == (200, b"{}")
        assert raw.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        JSON_HEAD + b"content-length: 9\r\n\r\n{",
        STREAM_HEAD + chunk(b"one"),
        STREAM_HEAD + b"zz\r\n",
    ],
)
async def test_a_body_that_does_not_come_to_its_end_is_an_error(raw: RawUpstream, reply: bytes) -> None:
    async with client() as opened:
        with pytest.raises(UpstreamBrokenError):
            await ask(opened, raw, reply)
        assert await ask(opened, raw, WHOLE) == (200, b"{}")


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200", b"no http\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"],
)
async def test_no_reply_is_an_error_of_a_request_that_was_sent(raw: RawUpstream, reply: bytes) -> None:
    async with client() as opened:
        with pytest.raises(UpstreamBrokenError) as caught:
            await ask(opened, raw, reply)
        assert caught.value.sent


async def test_nobody_there_is_an_error_of_a_request_that_was_not_sent() -> None:
    async with client() as opened:
        for address in ("http://127.0.0.1:9", "ftp://127.0.0.1", "http://"):
            with pytest.raises(UpstreamBrokenError) as caught:
                await opened.send("GET", address, "/", EMPTY, None)
            assert not caught.value.sent


async def test_a_silent_server_is_given_up() -> None:
    silence = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with client(silence_seconds=0.05) as opened:
        with pytest.raises(TimeoutError):
            await opened.send("GET", address, "/", EMPTY, None)
    silence.set()
    server.close()


async def test_a_closed_reply_wakes_who_waits_for_more() -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(STREAM_HEAD + chunk(b"one"))
        assert await reader.read() == b""
        hung_up.set()
        writer.close()

    hung_up = asyncio.Event()
    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with client() as opened:
        reply = await opened.send("GET", address, "/", EMPTY, None)
        got = []
        with pytest.raises(UpstreamBrokenError):
            async for piece in reply.chunks():
                got.append(piece)
                asyncio.get_running_loop().call_soon(reply.close)
        assert got == [b"one"]
        await asyncio.wait_for(hung_up.wait(), 5)
    server.close()


async def test_a_slow_reader_slows_the_server_and_loses_nothing(
    raw: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", 1000)
    body = bytes(range(256)) * 40_000
    raw.replies.append(JSON_HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    async with client() as opened:
        reply = await opened.send("GET", raw.url, "/", EMPTY, None)
        got = b""
        async for piece in reply.chunks():
            got += piece
            await asyncio.sleep(0)
        assert got == body


async def test_a_proxy_of_the_environment_is_asked_for_a_tunnel(
    raw: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) > 1:
            writer.write(b"HTTP/1.1 407 Login\r\n\r\n")
            writer.close()
            return
        host, _, port = raw.url.removeprefix("http://").partition(":")
        there_reader, there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        there.write(await reader.readuntil(b"{}"))
        writer.write(await there_reader.readuntil(b"{}"))
        await reader.read()
        there.close()
        writer.close()

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
    raw.replies.append(WHOLE)
    async with client() as opened:
        reply = await opened.send("POST", "http://far.example:81", "/x", EMPTY, b"{}")
        assert await reply.read() == b"{}"
        assert asked[0].startswith(b"CONNECT far.example:81 HTTP/1.1\r\n")
        assert b"proxy-authorization: Basic bWU6cEBzcw==\r\n" in asked[0]
        assert raw.received[0].startswith(b"POST /x HTTP/1.1\r\nhost: far.example:81\r\n")
    async with client() as opened:
        with pytest.raises(UpstreamBrokenError, match="407"):
            await opened.send("POST", "http://far.example:81", "/x", EMPTY, b"{}")
    server.close()
