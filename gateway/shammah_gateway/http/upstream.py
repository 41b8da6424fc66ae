"""Connections to the servers behind us, kept and used again; one request and its reply over one of them.

It reads no body and follows no redirect. Which server is asked and what its failure means is `teachers.upstreams`.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from typing import Self, cast
from urllib.parse import SplitResult, unquote, urlsplit

from multidict import CIMultiDict

from shammah_gateway.http.connection import Connection, RawHeaders, UpstreamBrokenError, UpstreamReply
from shammah_gateway.teachers.upstreams import Upstreams

__all__ = ["RawHeaders", "UpstreamBrokenError", "UpstreamClient", "UpstreamReply"]

CONNECT_SECONDS = 10.0
# As the SDKs' own patience with a whole answer: a model may think for minutes between two bytes.
SILENCE_SECONDS = 600.0
# Idle connections are kept this long; most servers and proxies close them after a minute.
KEEP_SECONDS = 30.0
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class _Server:
    """One address: how it is reached, and the connections to it that wait for a request."""

    host: str
    port: int
    secure: bool
    name: str
    path: str
    proxy: str
    idle: deque[Connection] = field(default_factory=deque)


class UpstreamClient:
    """Connections to the servers of `upstreams`. Made inside of a running event loop.

    `silence_seconds` is the patience between two bytes.
    """

    def __init__(self, upstreams: Upstreams, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self.upstreams = upstreams
        self._silence = silence_seconds
        self._servers: dict[str, _Server] = {}
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def speaks(self, protocol: str) -> bool:
        """Say whether any server takes this protocol."""
        return any(state.protocol == protocol for state in self.upstreams.states())

    async def send(
        self, method: str, base_url: str, target: str, headers: CIMultiDict[str], body: bytes | None
    ) -> UpstreamReply:
        """Send a request and return the reply as soon as its headers are there.

        `target` is path and query, encoded as it came. `headers` are sent as they are; host and length are ours.

        Raises:
            UpstreamBrokenError: no connection, or it ended without a reply. TimeoutError: no reply in time.
        """
        server = self._servers.get(base_url) or self._find(base_url)
        lines = [f"{method} {server.path}{target} HTTP/1.1\r\nhost: {server.name}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if body is not None:
            lines.append(f"content-length: {len(body)}\r\n")
        lines.append("\r\n")
        head = "".join(lines).encode("latin-1")
        connection = _take_idle(server) or await self._connect(server)
        return await connection.ask(head + body if body else head)

    async def close(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.close()

    def _find(self, base_url: str) -> _Server:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        if parts.scheme not in _PORTS or not host:
            raise UpstreamBrokenError(f"{base_url!r} is no http or https address", sent=False)
        # What the environment says is looked up once: it costs a scan.
        proxy = "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme, "")
        server = self._servers[base_url] = _Server(
            host=host,
            port=parts.port or _PORTS[parts.scheme],
            secure=parts.scheme == "https",
            name=parts.netloc.rpartition("@")[2],
            path=parts.path.rstrip("/"),
            proxy=proxy,
        )
        return server

    async def _connect(self, server: _Server) -> Connection:
        connection = Connection(lambda free: _keep_idle(server, free), silence_seconds=self._silence)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if server.proxy:
                    await self._connect_through(server, connection)
                else:
                    await self._connect_straight(server, connection)
        except TimeoutError as error:
            raise UpstreamBrokenError(f"no connection within {CONNECT_SECONDS:g} s", sent=False) from error
        except (OSError, ValueError) as error:
            raise UpstreamBrokenError(str(error) or type(error).__name__, sent=False) from error
        self._open = {one for one in self._open if one.usable}
        self._open.add(connection)
        return connection

    async def _connect_straight(self, server: _Server, connection: Connection) -> None:
        secure = await self._load_tls() if server.secure else None
        name = server.host if server.secure else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, server.host, server.port, ssl=secure, server_hostname=name)

    async def _connect_through(self, server: _Server, connection: Connection) -> None:
        """Ask a proxy for a tunnel; what is said inside of it is between the server and us."""
        proxy = urlsplit(server.proxy if "//" in server.proxy else f"http://{server.proxy}")
        if proxy.scheme != "http" or not proxy.hostname:
            raise ValueError(f"a proxy that is spoken to by {proxy.scheme} is not supported; allowed: http")
        loop = asyncio.get_running_loop()
        request = _write_connect(server, proxy)
        transport, tunnel = await loop.create_connection(
            lambda: _Tunnel(request), proxy.hostname, proxy.port or _PORTS["http"]
        )
        try:
            await tunnel.opened
            if server.secure:
                secured = await loop.start_tls(
                    transport, connection, await self._load_tls(), server_hostname=server.host
                )
                if secured is None:
                    raise ConnectionError("the proxy closed the tunnel")
                transport = secured
            else:
                transport.set_protocol(connection)
        except BaseException:
            transport.abort()
            raise
        connection.connection_made(transport)

    async def _load_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            # It reads the certificates of the system: off the loop.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls


class _Tunnel(asyncio.Protocol):
    """The talk with a proxy until it has opened a tunnel: `opened` is then done, or has the error."""

    def __init__(self, request: bytes) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the tunnel."""
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read the proxy's answer."""
        self._answer += data
        if self.opened.done() or b"\r\n\r\n" not in self._answer:
            return
        if self._answer.split(b" ")[1:2] == [b"200"]:
            self.opened.set_result(None)
        else:
            line = self._answer.splitlines()[0].decode("latin-1")
            self.opened.set_exception(ConnectionError(f"the proxy opens no tunnel: {line}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the proxy is gone."""
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the proxy closed the connection"))


def _write_connect(server: _Server, proxy: SplitResult) -> bytes:
    host = f"[{server.host}]" if ":" in server.host else server.host
    lines = [f"CONNECT {host}:{server.port} HTTP/1.1", f"host: {host}:{server.port}"]
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"proxy-authorization: Basic {base64.b64encode(login.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _take_idle(server: _Server) -> Connection | None:
    """Return a connection that waits, the one that was used last; the stale ones are closed."""
    idle = server.idle
    while idle:
        connection = idle.pop()
        if connection.usable and connection.loop.time() - connection.idle_since < KEEP_SECONDS:
            return connection
        connection.close()
    return None


def _keep_idle(server: _Server, connection: Connection) -> None:
    idle = server.idle
    idle.append(connection)
    # The oldest stands first. A burst leaves connections behind that nobody takes again.
    while idle and (not idle[0].usable or connection.idle_since - idle[0].idle_since > KEEP_SECONDS):
        idle.popleft().close()
