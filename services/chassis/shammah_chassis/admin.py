"""Plain HTTP for machines that watch a service: `/livez`, `/readyz`, `/metrics`.

Small on purpose: GET and HEAD, no body read, one answer a connection. It does not know what makes a service ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from http import HTTPStatus

from shammah_chassis.errors import UnavailableError

logger = logging.getLogger(__name__)
_READ_SECONDS = 5.0
_MAX_HEAD_BYTES = 16 << 10
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class AdminServer:
    """The admin HTTP of one service.

    `ready` says whether calls are welcome; `metrics` returns the Prometheus text.
    """

    def __init__(self, *, ready: Callable[[], bool], metrics: Callable[[], bytes]) -> None:
        self._ready = ready
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes any free one (then in `self.port`).

        Raises:
            UnavailableError: the address is taken or is not ours.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_HEAD_BYTES)
        except OSError as error:
            raise UnavailableError(f"admin HTTP can't listen on {host}:{port}: {error}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                answer = self._answer(head)
            except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                answer = _reply(HTTPStatus.BAD_REQUEST, b"not an HTTP request\n")
            writer.write(answer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        method, target, version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(version)
        if method not in ("GET", "HEAD"):
            return _reply(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        status, body, kind = self._look_up(target.split("?", 1)[0])
        return _reply(status, body, kind=kind, head_only=method == "HEAD")

    def _look_up(self, path: str) -> tuple[HTTPStatus, bytes, str]:
        if path == "/livez":
            return HTTPStatus.OK, b"alive\n", "text/plain"
        if path == "/readyz":
            if self._ready():
                return HTTPStatus.OK, b"ready\n", "text/plain"
            return HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n", "text/plain"
        if path == "/metrics":
            return HTTPStatus.OK, self._metrics(), _METRICS_TYPE
        return HTTPStatus.NOT_FOUND, b"paths: /livez /readyz /metrics\n", "text/plain"


def _reply(status: HTTPStatus, body: bytes, *, kind: str = "text/plain", head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else body)
