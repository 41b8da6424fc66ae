"""The door /mcp of the gateway's HTTP port: who calls, from which host, with how long a body; then the MCP server.

The MCP SDK takes about a second to import and much memory, so it is imported at the first request, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from shammah_chassis.errors import ForbiddenError, ShammahError, UnauthenticatedError
from shammah_chassis.scopes import Caller
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from shammah_gateway.http.auth import Gatekeeper, read_credential
from shammah_gateway.mcp.calls import Calls
from shammah_gateway.mcp.cancelling import read_cancelled
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import TOOLS, call_tool

if TYPE_CHECKING:
    from shammah_gateway.mcp.mount import Mount

# As the MCP SDK itself has it; 256 examples of the longest kind are far below.
MAX_BODY_BYTES = 4 << 20
_MOUNT = "shammah_gateway.mcp.mount"
_log = logging.getLogger(__name__)


class McpDoor:
    """An ASGI application; `hosts` are further names (no ports) that a Host or Origin header may have."""

    def __init__(self, tools: ToolContext, gatekeeper: Gatekeeper, hosts: Collection[str] = ()) -> None:
        self._tools = tools
        self._gatekeeper = gatekeeper
        self._hosts = tuple(hosts)
        self._calls = Calls(self._stop_job)
        self._opening: asyncio.Task[Mount] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope)
        try:
            caller = self._gatekeeper.identify(read_credential(headers))
            _check_scopes(caller)
        except UnauthenticatedError as error:
            await _refuse(401, "invalid_token", error)(scope, receive, send)
            return
        except ForbiddenError as error:
            await _refuse(403, "insufficient_scope", error)(scope, receive, send)
            return
        if scope["method"] == "POST":
            body = await _read_body(scope, receive)
            if body is None:
                await Response("the request body is too large; allowed: 4 MiB", 413)(scope, receive, send)
                return
            receive = _replay(body, receive)
            key = read_cancelled(body, caller, headers.get("mcp-session-id", ""))
            if key is not None:
                self._calls.cancel(key)
        mount = await self._open()
        await mount.serve(caller, scope, receive, send)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Let calls end for a while, then end every session; jobs go on until the gateway ends them."""
        await self._calls.close(drain_seconds)
        if self._opening is not None:
            for mount in await asyncio.gather(self._opening, return_exceptions=True):
                if not isinstance(mount, BaseException):
                    await mount.close()

    async def _open(self) -> Mount:
        if self._opening is None:
            self._opening = asyncio.create_task(self._start(), name="mcp start")
        return await asyncio.shield(self._opening)

    async def _start(self) -> Mount:
        module = await asyncio.to_thread(importlib.import_module, _MOUNT)
        mount: Mount = module.Mount(self._call_tool, self._calls, self._hosts)
        await mount.start()
        return mount

    async def _call_tool(self, caller: Caller, name: str, arguments: Mapping[str, Any], **options: Any) -> Any:  # noqa: ANN401 - the result model of the tool
        return await call_tool(self._tools, caller, name, arguments, **options)

    async def _stop_job(self, caller: Caller, tool: str, request_id: str) -> None:
        record = self._tools.jobs.find(caller.name, tool, request_id)
        if record is not None and not record.ended:
            _log.info("job %s is stopped: its call was cancelled", record.id)
            await call_tool(self._tools, caller, tool, {"job": record.id, "cancel": True})


def _check_scopes(caller: Caller) -> None:
    """Raise ForbiddenError for who may call no tool at all: a session for nothing would only take the place of one."""
    wanted = sorted({tool.scope for tool in TOOLS.values()})
    if caller.scopes.isdisjoint(wanted):
        raise ForbiddenError(
            f"/mcp needs one of the scopes {', '.join(wanted)}; {caller.name} has "
            f"{', '.join(sorted(caller.scopes)) or 'none'}; grant one: shammah tokens grant {caller.name} SCOPE"
        )


def _refuse(status: int, name: str, error: ShammahError) -> Response:
    """Return a refusal of RFC 6750."""
    body = {"error": name, "error_description": error.message}
    return Response(
        json.dumps(body),
        status,
        {"www-authenticate": f'Bearer realm="shammah", error="{name}"'},
        media_type="application/json",
    )


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body; None as soon as it is beyond the limit."""
    request = Request(scope, receive)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        return None
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > MAX_BODY_BYTES:
                return None
    except ClientDisconnect:
        # Whoever reads the rest learns of it there.
        return bytes(parts)
    return bytes(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands out a body that was read already, and then what comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
