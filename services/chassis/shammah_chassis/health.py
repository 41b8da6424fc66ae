"""The standard gRPC health service, with a `Watch` that ends when the service stops.

The one of grpcio-health-checking leaves watchers open for ever, so that each stop would wait out its whole grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2

_LAST_WORD_SECONDS = 0.2


class DrainingHealth(health.aio.HealthServicer):  # type: ignore[misc]
    """Health of the whole server ("") and of each service by name."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._ended = asyncio.Event()

    async def report(self, *, serving: bool) -> None:
        """Set the status of all services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.set(service, status)

    async def drain(self) -> None:
        """Report NOT_SERVING for good, tell the watchers so, and end them."""
        await self.enter_graceful_shutdown()
        self._ended.set()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: ANN401
        """Send the status now and at each change, until the caller leaves or the service stops."""
        watch = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({watch, ended}, return_when=asyncio.FIRST_COMPLETED)
            # The watcher was woken before `ended`: let it send its last word.
            await asyncio.wait({watch}, timeout=_LAST_WORD_SECONDS if ended.done() else None)
        finally:
            ended.cancel()
            watch.cancel()
