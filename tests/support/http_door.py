"""What the tests of the Anthropic door share: a running site, a client, and how its answers are read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from shammah_gateway.teachers.upstreams import Upstream
from support.http_site import TEACHER_MODEL, TOKEN, Site, serve_site
from support.raw_upstream import RawUpstream

PATH = "/v1/messages"
QUESTION = "What is the capital of France?"


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


def upstream(raw: RawUpstream, name: str = "raw") -> Upstream:
    return Upstream(name=name, protocol="messages", base_url=raw.url, headers={"x-api-key": "k"}, model="m")
