"""How the HTTP doors of a gateway are opened and closed. Nothing else of HTTP knows the gateway as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shammah_gateway.config import GatewaySettings
from shammah_gateway.gateway import Gateway
from shammah_gateway.http.app import make_app
from shammah_gateway.http.auth import Gatekeeper
from shammah_gateway.http.door import Door
from shammah_gateway.http.serve import HttpServer
from shammah_gateway.http.settings import HTTP_OFF
from shammah_gateway.http.upstream import UpstreamClient
from shammah_gateway.mcp.door import McpDoor
from shammah_gateway.teachers.choice import open_upstreams


@dataclass(frozen=True, slots=True)
class OpenHttp:
    """The running HTTP doors; without a server HTTP is off."""

    server: HttpServer | None = None
    upstream: UpstreamClient | None = None
    mcp: McpDoor | None = None
    drain_seconds: float = 0.0

    @property
    def ports(self) -> Mapping[str, int]:
        """What clients must know: the port by name."""
        return {"http_port": self.server.port} if self.server else {}

    async def stop_accepting(self) -> None:
        """Take no new connection."""
        if self.server is not None:
            await self.server.stop_accepting()

    async def close(self) -> None:
        """Let running requests end, bounded, then close everything."""
        if self.mcp is not None:
            # First: open event streams would use up the whole time that requests have.
            await self.mcp.close(self.drain_seconds)
        if self.server is not None:
            await self.server.close()
        if self.upstream is not None:
            await self.upstream.close()


async def open_http(gateway: Gateway) -> OpenHttp:
    """Serve the HTTP doors of a gateway, if its settings say so.

    Raises:
        InvalidInputError: a table of tokens or a key can't be read. UnavailableError: the port is taken.
    """
    settings = gateway.settings
    if settings.http_port == HTTP_OFF:
        return OpenHttp()
    door = make_door(gateway)
    mcp = McpDoor(gateway.tools, door.gatekeeper, list_hosts(settings))
    server = HttpServer(make_app(door, mcp), drain_seconds=settings.drain_seconds)
    fixed = "http_port" in settings.model_fields_set
    try:
        await server.start(settings.http_address, settings.http_port, or_any=not fixed)
    except BaseException:
        if door.upstream is not None:
            await door.upstream.close()
        raise
    return OpenHttp(server, door.upstream, mcp, settings.drain_seconds)


def list_hosts(settings: GatewaySettings) -> frozenset[str]:
    """Return the names by which /mcp may be reached beside those of this machine; "every address" is no name."""
    own = {settings.http_address} - {"0.0.0.0", "::", ""}
    return settings.mcp_hosts | {f"[{name}]" if ":" in name else name for name in own}


def make_door(gateway: Gateway) -> Door:
    """Return what the routes of a gateway share; inside of a running event loop.

    Raises:
        InvalidInputError: as `open_http`.
    """
    settings = gateway.settings
    clients_pay = settings.http_credentials == "client"
    upstreams = open_upstreams(settings, gateway.board, own_key=not clients_pay)
    return Door(
        gateway=gateway.desk,
        gatekeeper=Gatekeeper(gateway.consent.tokens, let_anybody=clients_pay),
        settings=settings,
        upstream=UpstreamClient(upstreams) if upstreams.states() else None,
        ledger=gateway.ledger,
        teacher_models=tuple(filter(None, (settings.anthropic_model, settings.anthropic_backup_model))),
        teacher_names=settings.teacher_names,
        state_dir=settings.own_dir,
    )
