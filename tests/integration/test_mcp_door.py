"""The door /mcp: tokens, hosts, origins, bodies, sessions; and what the other routes notice of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from shammah_chassis.bus import Bus
from shammah_gateway.mcp.mount import MAX_SESSIONS
from shammah_gateway.mcp.sessions import MAX_PER_CALLER
from support.mcp_site import McpSite, serve_mcp_site

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture
async def site(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[McpSite]:
    async with serve_mcp_site(tmp_path, bus, nats_server.url, mcp_hosts="shammah.example") as served:
        yield served


@pytest.fixture
async def raw() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(headers=ACCEPT, timeout=30) as client:
        yield client


async def test_without_a_known_token_nothing_is_told(site: McpSite, raw: httpx2.AsyncClient) -> None:
    for headers in ({}, {"authorization": "Bearer nobody"}, {"authorization": "Basic eDp5"}):
        for method in ("POST", "GET", "DELETE"):
            answer = await raw.request(method, site.url, json=HELLO, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert "token" in answer.json()["error_description"]


async def test_only_known_hosts_and_origins_are_served(site: McpSite, raw: httpx2.AsyncClient) -> None:
    async def status(**headers: str) -> int:
        return (await raw.post(site.url, json=HELLO, headers={**site.headers(), **headers})).status_code

    assert await status() == 200
    assert await status(host="evil.example") == 421
    assert await status(host="127.0.0.1.evil.example:8080") == 421
    assert await status(host="shammah.example") == await status(host="shammah.example:8080") == 200
    assert await status(origin="https://evil.example") == 403
    assert await status(origin="http://localhost:3000") == await status(origin="https://shammah.example") == 200


async def test_a_body_has_at_most_four_mebibytes(site: McpSite, raw: httpx2.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * (1 << 20)

    for body in (b" " * ((4 << 20) + 1), parts()):
        answer = await raw.post(site.url, content=body, headers=site.headers())
        assert answer.status_code == 413
    broken = await raw.post(site.url, content=b'{"jsonrpc": ', headers=site.headers())
    assert broken.status_code == 400 and broken.json()["error"]["code"] == -32700


async def test_a_session_belongs_to_who_opened_it(site: McpSite, raw: httpx2.AsyncClient) -> None:
    opened = await raw.post(site.url, json=HELLO, headers=site.headers())
    session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    asking = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert (await raw.post(site.url, json=asking, headers={**session, **site.headers("guest")})).status_code == 404
    assert (await raw.post(site.url, json=asking, headers={**session, **site.headers()})).status_code == 200


async def test_who_may_call_no_tool_opens_no_session(site: McpSite, raw: httpx2.AsyncClient) -> None:
    for method in ("POST", "GET"):
        answer = await raw.request(method, site.url, json=HELLO, headers=site.headers("internal"))
        assert answer.status_code == 403 and "mcp-session-id" not in answer.headers
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert "needs one of the scopes" in answer.json()["error_description"]


async def test_no_caller_locks_another_out_of_sessions(site: McpSite, raw: httpx2.AsyncClient) -> None:
    mine = await raw.post(site.url, json=HELLO, headers=site.headers())
    theirs = []
    for _ in range(MAX_SESSIONS + 1):
        answer = await raw.post(site.url, json=HELLO, headers=site.headers("guest"))
        assert answer.status_code == 200
        theirs.append(answer.headers["mcp-session-id"])
    asking = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}

    async def status(session: str, caller: str) -> int:
        headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25", **site.headers(caller)}
        return (await raw.post(site.url, json=asking, headers=headers)).status_code

    assert await status(mine.headers["mcp-session-id"], "owner") == 200
    assert (await raw.post(site.url, json=HELLO, headers=site.headers())).status_code == 200
    kept = [await status(session, "guest") for session in theirs]
    assert kept == [404] * (len(theirs) - MAX_PER_CALLER) + [200] * MAX_PER_CALLER


async def test_half_of_a_surrogate_pair_is_refused_by_name(site: McpSite, raw: httpx2.AsyncClient) -> None:
    version = "2026-07-28"
    meta = {"protocolVersion": version, "clientInfo": {"name": "raw", "version": "1"}, "clientCapabilities": {}}
    headers = {"mcp-protocol-version": version, "mcp-method": "tools/call", **site.headers()}
    for name, arguments in (
        ("generate_training_data", {"category": "c", "examples": [{"query": "half \ud83d", "response": "a"}]}),
        ("query_local_model", {"query": "half \ud83d"}),
    ):
        params = {"name": name, "arguments": arguments}
        params["_meta"] = {f"io.modelcontextprotocol/{key}": value for key, value in meta.items()}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        answer = await raw.post(site.url, content=body, headers={**headers, "mcp-name": name})
        assert "invalid_input: " in answer.text and "unicode" in answer.text.lower().replace("utf-8", "unicode")


async def test_the_other_routes_go_on(site: McpSite, raw: httpx2.AsyncClient) -> None:
    assert (await raw.get(f"{site.base}/")).text == "Shammah gateway\n"
    assert (await raw.get(f"{site.base}/v1/models", headers=site.headers())).status_code == 200
    assert (await raw.get(f"{site.base}/mcp/more", headers=site.headers())).status_code == 404


async def test_the_gateway_stops_although_an_event_stream_is_open(site: McpSite, raw: httpx2.AsyncClient) -> None:
    opened = await raw.post(site.url, json=HELLO, headers=site.headers())
    session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    async with raw.stream("GET", site.url, headers={**session, **site.headers()}) as events:
        assert events.status_code == 200
        await site.http.close()
        assert [line async for line in events.aiter_lines() if line.startswith("data: {")] == []
