"""Calls that take long, over MCP: progress, cancellation, clients that go away, and calls that are repeated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from mcp_types import CallToolRequest
from shammah_chassis.bus import Bus
from shammah_gateway.http.opening import open_http
from shammah_gateway.job_record import JobRecord
from shammah_gateway.mcp.words import REQUEST_ID_META
from support.mcp_site import ERAS, FACES, McpSite, connect, serve_mcp_site
from support.services import until

ANALYSIS = {"test_count": 60}
EVERY_WAY = pytest.mark.parametrize(("face", "era"), [(face, era) for face in FACES for era in ERAS])
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "analyze_model"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
}
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.fixture
async def site(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[McpSite]:
    async with serve_mcp_site(tmp_path, bus, nats_server.url) as served:
        served.cluster.script.slow = 0.4
        yield served


async def running(site: McpSite) -> JobRecord:
    """Wait for the one job that runs, and until it got somewhere."""
    await until(lambda: len(site.gateway.jobs.running()) == 1)
    (record,) = site.gateway.jobs.running()
    await until(lambda: record.progress > 0)
    return record


@EVERY_WAY
async def test_progress_is_told_and_grows(site: McpSite, face: str, era: str) -> None:
    site.cluster.script.slow = 0.05
    told: list[tuple[float, float | None, str | None]] = []

    async def note(share: float, total: float | None, message: str | None) -> None:
        told.append((share, total, message))

    async with connect(site, face, ERAS[era]) as client:
        result = await client.call_tool("analyze_model", ANALYSIS, progress_callback=note)
    assert result.structured_content["tested"] == 60
    shares = [share for share, _, _ in told]
    assert len(told) >= 3 and shares == sorted(set(shares)) and {total for _, total, _ in told} == {1.0}
    assert any("tested" in (message or "") for _, _, message in told)


@EVERY_WAY
async def test_a_cancelled_call_stops_its_job(site: McpSite, face: str, era: str) -> None:
    async with connect(site, face, ERAS[era]) as client:
        call = asyncio.create_task(client.call_tool("analyze_model", ANALYSIS))
        record = await running(site)
        call.cancel()
        await until(lambda: record.ended)
        assert record.state == "cancelled"
        # The connection lives on.
        assert len((await client.list_tools()).tools) == 5


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_is_killed_leaves_its_job_running(site: McpSite, era: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    with contextlib.suppress(BaseExceptionGroup, Exception):
        async with connect(site, "stdio", ERAS[era]) as client:
            call = asyncio.create_task(client.call_tool("analyze_model", ANALYSIS))
            record = await running(site)
            for child in set(psutil.Process().children(recursive=True)) - before:
                child.kill()
            with contextlib.suppress(Exception):
                await call
    await until(lambda: record.ended)
    assert record.state == "done"


async def test_a_broken_connection_in_a_session_leaves_the_job_running(site: McpSite) -> None:
    async with httpx2.AsyncClient(headers={**site.headers(), **ACCEPT}) as raw:
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        opened = await raw.post(site.url, json=rpc("initialize", hello))
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        await raw.post(site.url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
        asking = rpc("tools/call", {"name": "analyze_model", "arguments": ANALYSIS})
        with pytest.raises(httpx2.ReadTimeout):
            await raw.post(site.url, json=asking, headers=session, timeout=0.5)
    record = await running(site)
    await until(lambda: record.ended)
    assert record.state == "done"


async def test_a_closed_stream_without_a_session_cancels_unless_the_call_has_a_request_id(site: McpSite) -> None:
    async with httpx2.AsyncClient(headers={**site.headers(), **ACCEPT, **MODERN}) as raw:
        with pytest.raises(httpx2.ReadTimeout):
            await raw.post(site.url, json=modern_call(ANALYSIS), timeout=0.5)
        record = next(iter(site.gateway.jobs.running()))
        await until(lambda: record.ended)
        assert record.state == "cancelled"
        kept = modern_call({"test_count": 50}, **{REQUEST_ID_META: "mine"})
        with pytest.raises(httpx2.ReadTimeout):
            await raw.post(site.url, json=kept, timeout=0.5)
        record = await running(site)
        answer = (await raw.post(site.url, json=kept, timeout=30)).json()
        assert answer["result"]["structuredContent"]["job"]["id"] == record.id
        assert answer["result"]["structuredContent"]["job"]["state"] == "done"


async def test_a_kept_call_is_cancelled_by_its_request_id_but_not_by_a_stranger(site: McpSite) -> None:
    stop = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 1, "_meta": {**ENVELOPE, REQUEST_ID_META: "mine"}},
    }
    headers = {**ACCEPT, "mcp-protocol-version": "2026-07-28", "mcp-method": "notifications/cancelled"}
    async with httpx2.AsyncClient(timeout=30) as raw:
        kept = modern_call(ANALYSIS, **{REQUEST_ID_META: "mine"})
        call = asyncio.create_task(raw.post(site.url, json=kept, headers={**site.headers(), **ACCEPT, **MODERN}))
        record = await running(site)
        assert (await raw.post(site.url, json=stop, headers={**headers, **site.headers("guest")})).status_code == 202
        assert not record.cancelling
        assert (await raw.post(site.url, json=stop, headers={**headers, **site.headers()})).status_code == 202
        await until(lambda: record.ended)
        assert record.state == "cancelled"
        assert (await call).json()["result"]["isError"]


@pytest.mark.parametrize("face", FACES)
async def test_the_same_request_id_is_the_same_job(site: McpSite, face: str) -> None:
    site.cluster.script.slow = 0.0
    async with connect(site, face, "auto") as client:
        meta: Any = {REQUEST_ID_META: "once"}
        first = await client.call_tool("generate_training_data", {"category": "poems", "count": 10}, meta=meta)
        again = await client.call_tool("generate_training_data", {"category": "poems", "count": 10}, meta=meta)
        other = await client.call_tool("generate_training_data", {"category": "poems", "count": 20}, meta=meta)
    assert first.structured_content == again.structured_content and first.structured_content["queued"] == 10
    assert other.is_error and "other arguments" in other.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_over_stdio_survives_a_gateway_that_starts_again(site: McpSite, era: str) -> None:
    # Longer than a gateway that stops waits for its calls.
    site.cluster.script.slow = 0.9
    async with connect(site, "stdio", ERAS[era]) as client:
        call = asyncio.create_task(client.call_tool("analyze_model", ANALYSIS))
        record = await running(site)
        assert site.http.server is not None
        port = site.http.server.port
        # The port goes away and comes back; sessions are lost, jobs are not.
        await site.http.close()
        settings = site.gateway.settings.model_copy(update={"http_port": port})
        object.__setattr__(site.gateway, "settings", settings)
        assert not call.done()
        site.http = await open_http(site.gateway)
        result = await call
        assert result.structured_content["job"]["id"] == record.id and not result.is_error
        assert len((await client.list_tools()).tools) == 5
        await site.http.close()


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def modern_call(arguments: dict[str, Any], **meta: str) -> dict[str, Any]:
    return rpc("tools/call", {"name": "analyze_model", "arguments": arguments, "_meta": {**ENVELOPE, **meta}})


def test_the_raw_call_is_what_the_sdk_sends() -> None:
    CallToolRequest.model_validate(modern_call({}))
