"""The MCP SDK's streamable HTTP in a running event loop, beside the gateway's own routes.

It imports the SDK. Whoever calls is known already; here the host is checked and the session served.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import INTERNAL_ERROR
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from shammah_chassis.errors import OverloadedError
from shammah_chassis.scopes import Caller
from shammah_chassis.tasks import stop_tasks
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from shammah_gateway.mcp.calls import Calls
from shammah_gateway.mcp.server import CALLER_SCOPE, SESSION_HEADER, CallTool, make_server
from shammah_gateway.mcp.sessions import Sessions

_VERSION_HEADER = "mcp-protocol-version"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
MAX_SESSIONS = 256


class Mount:
    """The server and its sessions between `start` and `close`."""

    def __init__(
        self,
        call_tool: CallTool,
        calls: Calls,
        hosts: Collection[str],
        definitions: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._manager = StreamableHTTPSessionManager(
            make_server(call_tool, calls, definitions), security_settings=check_hosts(hosts), max_sessions=MAX_SESSIONS
        )
        self._sessions = Sessions()
        self._serving: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    async def start(self) -> None:
        """Begin to serve. The sessions live in a task of their own: no request may outlive or end them."""
        self._serving = asyncio.create_task(self._run(), name="mcp")
        await self._started.wait()

    async def serve(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of a caller; a session belongs to who opened it."""
        token = AccessToken(token="", client_id=caller.name, scopes=sorted(caller.scopes))
        scope = {**scope, CALLER_SCOPE: caller, "user": AuthenticatedUser(token)}
        headers = Headers(scope=scope)
        session = headers.get(SESSION_HEADER, "")
        if session:
            self._sessions.use(caller.name, session)
        elif headers.get(_VERSION_HEADER) in (None, *HANDSHAKE_PROTOCOL_VERSIONS):
            await self._open_session(caller, scope, receive, send)
            return
        await self._manager.handle_request(scope, receive, send)
        if session and scope["method"] == "DELETE":
            self._sessions.drop(caller.name, session)

    async def _open_session(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that may open a session, with room made for it among those of its caller."""

        async def end(session: str) -> None:
            await self._end_session(scope, session)

        try:
            async with self._sessions.opening(caller.name, end) as note:

                async def watch(message: Message) -> None:
                    # Noted before the client knows it, so that its end can't come first.
                    if message["type"] == "http.response.start" and message["status"] < 400:
                        opened = Headers(raw=message["headers"]).get(SESSION_HEADER)
                        if opened:
                            note(opened)
                    await send(message)

                await self._manager.handle_request(scope, receive, watch)
        except OverloadedError as error:
            await _refuse(error)(scope, receive, send)

    async def _end_session(self, scope: Scope, session: str) -> None:
        """End a session of the caller of `scope` as that caller could: by a DELETE, whose answer nobody reads."""
        headers = [(b"host", LOOPBACK_NAMES[0].encode()), (SESSION_HEADER.encode(), session.encode())]

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            return

        await self._manager.handle_request({**scope, "method": "DELETE", "headers": headers}, receive, send)

    async def close(self) -> None:
        """End all sessions."""
        await stop_tasks([self._serving])

    async def _run(self) -> None:
        async with self._manager.run():
            self._started.set()
            await asyncio.Event().wait()


def _refuse(error: OverloadedError) -> Response:
    """Return a 503 in the words of JSON-RPC, as the SDK has it for its own limit."""
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": INTERNAL_ERROR, "message": error.message}}
    wait = f"{error.retry_after_seconds or 1.0:.0f}"
    return Response(json.dumps(body), 503, {"retry-after": wait}, media_type="application/json")


def check_hosts(hosts: Collection[str]) -> TransportSecuritySettings:
    """Return the check of Host and Origin: names of this machine and the given ones, each with any port or none.

    A page of a foreign site that has its name resolved to this machine (DNS rebinding) is refused by it.
    """
    names = [*LOOPBACK_NAMES, *hosts]
    allowed = [entry for name in names for entry in (name, f"{name}:*")]
    origins = [f"{kind}://{entry}" for kind in ("http", "https") for entry in allowed]
    return TransportSecuritySettings(allowed_hosts=allowed, allowed_origins=origins)
