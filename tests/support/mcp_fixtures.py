"""An MCP site with the tools that the conformance suite asks for, on our own server and mount; open to everyone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel
from shammah_chassis.errors import InvalidInputError, NotFoundError
from shammah_chassis.scopes import Caller
from shammah_gateway.http.serve import HttpServer
from shammah_gateway.mcp.calls import Calls
from shammah_gateway.mcp.mount import Mount
from shammah_gateway.mcp.server import OnProgress
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

NAMES = ("test_simple_text", "test_error_handling", "test_tool_with_progress")


class Said(BaseModel):
    """What a fixture tool returns."""

    text: str


async def call_fixture(
    caller: Caller, name: str, arguments: Mapping[str, Any], *, request_id: str, on_progress: OnProgress | None
) -> BaseModel:
    """Do what the conformance suite expects of a tool."""
    if name == "test_error_handling":
        raise InvalidInputError("This tool intentionally returns an error for testing")
    if name == "test_tool_with_progress":
        for share in (0.0, 0.5, 1.0):
            assert on_progress is not None
            await on_progress(share, "working")
    if name not in NAMES:
        raise NotFoundError(f"no fixture {name}")
    return Said(text="This is a simple text response for testing.")


class _OpenMount:
    def __init__(self, mount: Mount) -> None:
        self._mount = mount

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._mount.serve(Caller("anybody", frozenset()), scope, receive, send)


@asynccontextmanager
async def serve_fixtures() -> AsyncIterator[str]:
    """Serve the fixture tools on a free loopback port while the block runs; yields the URL."""

    async def stop_nothing(caller: Caller, tool: str, request_id: str) -> None:
        return

    calls = Calls(stop_nothing)
    definitions = [{"name": name, "description": name, "inputSchema": {"type": "object"}} for name in NAMES]
    mount = Mount(call_fixture, calls, (), definitions)
    await mount.start()
    server = HttpServer(Starlette(routes=[Route("/mcp", _OpenMount(mount))]), drain_seconds=1)
    await server.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.port}/mcp"
    finally:
        await calls.close()
        await mount.close()
        await server.close()
