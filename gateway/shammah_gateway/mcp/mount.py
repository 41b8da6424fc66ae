"""The MCP SDK's streamable HTTP in a running event loop, beside the gateway's own routes.

It imports the SDK. Whoever calls is known already; here the host is checked and the session served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from shammah_chassis.scopes import Caller
from shammah_chassis.tasks import stop_tasks
from starlette.types import Receive, Scope, Send

from shammah_gateway.mcp.calls import Calls
from shammah_gateway.mcp.server import CALLER_SCOPE, CallTool, make_server

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
        await self._manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """End all sessions."""
        await stop_tasks([self._serving])

    async def _run(self) -> None:
        async with self._manager.run():
            self._started.set()
            await asyncio.Event().wait()


def check_hosts(hosts: Collection[str]) -> TransportSecuritySettings:
    """Return the check of Host and Origin: names of this machine and the given ones, each with any port or none.

    A page of a foreign site that has its name resolved to this machine (DNS rebinding) is refused by it.
    """
    names = [*LOOPBACK_NAMES, *hosts]
    allowed = [entry for name in names for entry in (name, f"{name}:*")]
    origins = [f"{kind}://{entry}" for kind in ("http", "https") for entry in allowed]
    return TransportSecuritySettings(allowed_hosts=allowed, allowed_origins=origins)
