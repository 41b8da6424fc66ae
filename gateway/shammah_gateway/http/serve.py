"""The HTTP server: uvicorn in the event loop of the gateway, on one port, started and stopped by it.

It knows no route. Signals, logging and the lifespan stay the gateway's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Iterator

import uvicorn
from shammah_chassis.errors import UnavailableError
from starlette.applications import Starlette

# As long as most clients and load balancers keep an idle connection.
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048
_START_TICK_SECONDS = 0.005
_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the service."""
        yield


class HttpServer:
    """Serves one application between `start` and `close`."""

    def __init__(self, app: Starlette, *, drain_seconds: float) -> None:
        self._drain = drain_seconds
        self._config = uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, math.ceil(drain_seconds)),
        )
        self._server = _Server(self._config)
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int, *, or_any: bool = False) -> None:
        """Listen; with `or_any` a taken port is replaced by any free one.

        Raises:
            UnavailableError: the port is taken, or the host is not ours.
        """
        listener = _listen(host, port, or_any=or_any)
        self.port = int(listener.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(_START_TICK_SECONDS)
        if self._serving.done():
            await self._serving
            raise UnavailableError(f"HTTP ended at its start on {host}:{port}")
        _log.info("HTTP listens on %s:%d", host, self.port)

    async def stop_accepting(self) -> None:
        """Take no new connection; what runs goes on."""
        self._server.should_exit = True

    async def close(self) -> None:
        """Stop: requests that run may go on for `drain_seconds`, then they are cancelled."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving})


def _listen(host: str, port: int, *, or_any: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Connections inherit it; asyncio itself sets it only on sockets that name their protocol, which these don't.
        # Without it an answer of two pieces waits 40 ms for the acknowledgement of the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if not or_any or port == 0:
            raise UnavailableError(
                f"HTTP can't listen on {host}:{port}: {error.strerror}; SHAMMAH_GATEWAY_HTTP_PORT sets another port"
            ) from error
        _log.warning("HTTP port %d is taken: any free one is used; SHAMMAH_GATEWAY_HTTP_PORT fixes one", port)
        return _listen(host, 0, or_any=False)
