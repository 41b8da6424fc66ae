"""Start and ordered stop of a service: admin HTTP, gRPC with health and reflection, signals, drain.

Stop order: health NOT_SERVING, then no new calls while the running ones end (`drain_seconds`), then engines, then the
bus. It does not know what is served: the service hands over its parts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shammah_chassis.admin import AdminServer
from shammah_chassis.channels import MAX_MESSAGE_BYTES
from shammah_chassis.errors import UnavailableError
from shammah_chassis.health import DrainingHealth
from shammah_chassis.interceptors import CallInterceptor
from shammah_chassis.metrics import Reading, ServiceMetrics
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.tokens import TokenTable

logger = logging.getLogger(__name__)
_HEALTH_SECONDS = 0.1
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Our clients ping each 10 s even without calls; the default server would turn them away for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two processes on one port must be an error, not a lottery.
    ("grpc.so_reuseport", 0),
)

Add = Callable[[Any, aio.Server], None]
AsyncStep = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What a service hands over to be served.

    `servicers`: pairs of the generated `add_XServicer_to_server` and the servicer. `service_names`: full gRPC names
    for health and reflection. `ready`: are calls welcome. `before_stop`: steps that end endless streams, run before
    the grace begins. `close`: steps after the last call, in order (engines first, the bus last). `readings`: metrics.
    `ports`: further ports that the service listens on, by name, for the ready file.
    """

    servicers: Sequence[tuple[Add, Any]]
    service_names: Sequence[str]
    ready: Callable[[], bool]
    close: Sequence[AsyncStep] = ()
    before_stop: Sequence[AsyncStep] = ()
    readings: Sequence[Reading] = ()
    ports: Mapping[str, int] = field(default_factory=dict)


Build = Callable[[], Awaitable[ServiceParts]]


class Service:
    """A service between its start and its stop; `run_service` is the usual way to have one."""

    def __init__(self, settings: ServiceSettings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._metrics = ServiceMetrics(name)
        self._admin = AdminServer(ready=self._is_ready, metrics=self._metrics.render)
        self._parts: ServiceParts | None = None
        self._health: DrainingHealth | None = None
        self._server: aio.Server | None = None
        self._follower: asyncio.Task[None] | None = None
        self._stopping = False
        self.port = 0

    @property
    def admin_port(self) -> int:
        """The port of the admin HTTP."""
        return self._admin.port

    async def start(self, build: Build) -> None:
        """Start: admin HTTP, then the parts, then gRPC, then the ready file.

        Raises:
            InvalidInputError: no usable table of tokens.
            UnavailableError: a port is taken.
        """
        tokens = TokenTable.load(self._settings.tokens_file)
        await self._admin.start(self._settings.host, self._settings.admin_port)
        self._parts = parts = await build()
        self._metrics.add_readings(parts.readings)
        self._health = DrainingHealth(parts.service_names)
        await self._health.report(serving=parts.ready())
        self._server = server = aio.server(interceptors=[CallInterceptor(tokens, self._metrics)], options=_OPTIONS)
        for add, servicer in parts.servicers:
            add(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*parts.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        self.port = self._listen(server)
        await server.start()
        self._follower = asyncio.create_task(self._follow_readiness(parts, self._health))
        self._write_ready_file()
        logger.info("%s listens on %s:%d, admin on %d", self._name, self._settings.host, self.port, self.admin_port)

    async def stop(self) -> None:
        """Stop in order; calls that run may go on for `drain_seconds`."""
        self._stopping = True
        logger.info("%s stops", self._name)
        if self._follower is not None:
            self._follower.cancel()
        if self._health is not None:
            await self._health.drain()
        parts = self._parts or ServiceParts((), (), ready=lambda: False)
        for step in parts.before_stop:
            await step()
        if self._server is not None:
            await self._server.stop(self._settings.drain_seconds)
        for step in parts.close:
            await step()
        await self._admin.close()
        if self._settings.ready_file is not None:
            self._settings.ready_file.unlink(missing_ok=True)
        logger.info("%s has stopped", self._name)

    def _is_ready(self) -> bool:
        return self._parts is not None and not self._stopping and self.port != 0 and self._parts.ready()

    def _listen(self, server: aio.Server) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise UnavailableError(f"gRPC can't listen on {address}: {error}") from error
        if port == 0:
            raise UnavailableError(f"gRPC can't listen on {address}")
        return port

    async def _follow_readiness(self, parts: ServiceParts, state: DrainingHealth) -> None:
        while True:
            await state.report(serving=parts.ready())
            await asyncio.sleep(_HEALTH_SECONDS)

    def _write_ready_file(self) -> None:
        path = self._settings.ready_file
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        extra = dict(self._parts.ports) if self._parts else {}
        told = {"port": self.port, "admin_port": self.admin_port, **extra, "pid": os.getpid()}
        aside.write_text(json.dumps(told), "utf-8")
        aside.replace(path)


async def run_service(settings: ServiceSettings, *, name: str, build: Build, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then stop in order.

    Raises:
        InvalidInputError: no usable table of tokens.
        UnavailableError: a port is taken.
    """
    asked = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    service = Service(settings, name=name)
    starting = asyncio.create_task(service.start(build))
    waiting = asyncio.create_task(asked.wait())
    try:
        # A stop that comes while the parts are built (the bus may be away) must not wait for them.
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await waiting
    finally:
        waiting.cancel()
        starting.cancel()
        await asyncio.wait({starting})
        await service.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
