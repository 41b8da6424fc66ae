"""Headers of both eras, and messages of a response, whatever the pieces that they come in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from shammah_gateway.mcp.wire import is_modern, modern_headers, read_messages, session_headers

ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}


def test_only_a_message_that_names_its_version_is_of_the_new_era() -> None:
    assert is_modern({"params": {"_meta": ENVELOPE}})
    for message in ({}, {"params": None}, {"params": []}, {"params": {"_meta": 5}}, {"params": {"_meta": {}}}):
        assert not is_modern(message)


@pytest.mark.parametrize(
    ("name", "header"),
    [("train", "train"), ("Zug", "Zug"), ("zug\u00e9", "=?base64?enVnw6k=?="), (" a", "=?base64?IGE=?=")],
)
def test_the_new_era_repeats_method_and_tool_in_headers(name: str, header: str) -> None:
    headers = modern_headers("2026-07-28", {"method": "tools/call", "params": {"name": name}})
    assert (headers["mcp-protocol-version"], headers["mcp-method"]) == ("2026-07-28", "tools/call")
    assert headers["mcp-name"] == header
    assert "mcp-name" not in modern_headers("2026-07-28", {"method": "tools/list", "params": {}})


def test_the_old_era_has_session_headers_after_the_handshake_only() -> None:
    assert set(session_headers("", "")) == {"accept"}
    assert session_headers("S", "2025-11-25")["mcp-session-id"] == "S"


@pytest.fixture
async def said() -> AsyncIterator[dict[str, object]]:
    """A server whose response is a field."""
    answer: dict[str, object] = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": str(answer["type"])})
        await response.prepare(request)
        pieces = answer["pieces"]
        assert isinstance(pieces, list)
        for piece in pieces:
            await response.write(piece)
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestServer(app) as server:
        answer["url"] = str(server.make_url("/"))
        yield answer


async def read(said: dict[str, object]) -> list[object]:
    async with ClientSession() as session, session.get(str(said["url"])) as response:
        return [message async for message in read_messages(response)]


async def test_an_event_stream_is_read_whatever_its_pieces(said: dict[str, object]) -> None:
    large = {"text": "\u00e9" * 300_000}
    stream = (
        b": ping\r\n\r\nevent: message\r\ndata: " + json.dumps(large, ensure_ascii=False).encode() + b"\r\n\r\n"
        b'id: 5\ndata: \n\ndata: {"a":\ndata: 1}\n\n'
    )
    for size in (len(stream), 65_537, 100_003):
        said |= {"type": "text/event-stream", "pieces": [stream[at : at + size] for at in range(0, len(stream), size)]}
        assert await read(said) == [large, {"a": 1}]


async def test_json_is_one_message_and_nothing_is_none(said: dict[str, object]) -> None:
    said |= {"type": "application/json", "pieces": [b'{"a"', b": 1}"]}
    assert await read(said) == [{"a": 1}]
    said |= {"pieces": []}
    assert await read(said) == []
    said |= {"pieces": [b"<html>"]}
    with pytest.raises(ValueError):
        await read(said)
