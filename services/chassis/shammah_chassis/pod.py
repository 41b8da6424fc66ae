"""What the three serving roles have in common: a pod that follows `wanted`, holds versions, and serves one role.

Put together here once: executors, store, held versions, the link to the bus, `ModelService`, readiness, metrics and
the order of closing. It does not know the role's own service, which the caller makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from shammah.v1 import models_pb2_grpc

from shammah_chassis import model_service
from shammah_chassis.artifacts import open_store
from shammah_chassis.bus import Bus
from shammah_chassis.desired import recall_wanted, watch_wanted
from shammah_chassis.errors import ShammahError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, HoldState, Loader
from shammah_chassis.manifest import Role
from shammah_chassis.metrics import Reading
from shammah_chassis.model_service import ModelServicer
from shammah_chassis.serving import Add, ServiceParts
from shammah_chassis.settings import ServiceSettings, read_secret

logger = logging.getLogger(__name__)
T = TypeVar("T")
_LOADER_QUEUE = 1024
_LONGEST_PAUSE_SECONDS = 5.0
# A load that can't be stopped (a thread, a store that hangs) must not keep the process from ending.
_CLOSE_SECONDS = 10.0


class Pod(Generic[T]):
    """The common part of a serving pod.

    A servicer uses `held` to lease a version and `inference` to run its engine.
    """

    def __init__(self, settings: ServiceSettings, *, role: Role, loader: Loader[T]) -> None:
        self._settings = settings
        self._role: Role = role
        self._loader = loader
        self._bus: Bus | None = None
        self._link: asyncio.Task[None] | None = None
        self._loading = BoundedExecutor(threads=1, queue_limit=_LOADER_QUEUE, name=f"{role}-loader")
        self.inference = BoundedExecutor(
            threads=settings.inference_threads, queue_limit=settings.queue_limit, name=f"{role}-inference"
        )
        self.held: HeldVersions[T]

    async def build(
        self, make_servicer: Callable[[Pod[T]], tuple[Add, Any, str]], readings: Sequence[Reading] = ()
    ) -> ServiceParts:
        """Open the store, begin to follow `wanted`, and return the parts to serve.

        `make_servicer` returns the generated add function, the servicer of the role and its full gRPC name. With the
        store "nats:" this waits for the bus; otherwise the bus may come later.
        """
        if self._settings.store_url == "nats:":
            await self._connect()
        self.held = HeldVersions(
            self._role,
            store=open_store(self._settings.store_url, self._bus),
            loader=self._loader,
            cache_dir=self._settings.cache_dir,
            executor=self._loading,
        )
        self._link = asyncio.create_task(self._follow(), name="follow-wanted")
        add, servicer, service_name = make_servicer(self)
        return ServiceParts(
            servicers=[(add, servicer), (models_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(self.held))],
            service_names=[service_name, model_service.SERVICE_NAME],
            ready=lambda: self.held.ready,
            before_stop=[self._leave],
            close=[self._close_engines, self._close_bus],
            readings=[*self._readings(), *readings],
        )

    @property
    def _memory(self) -> Path:
        return self._settings.cache_dir / f"{self._role}.wanted.json"

    async def _follow(self) -> None:
        """Hold what was wanted last until the bus says what is wanted now."""
        last = recall_wanted(self._memory)
        recalled = asyncio.create_task(self.held.reconcile(last)) if last is not None else None
        watch: asyncio.Task[None] | None = None
        try:
            watch = watch_wanted(await self._connect(), self.held, remember=self._memory)
            await watch
        finally:
            for task in (recalled, watch):
                if task is not None:
                    task.cancel()

    async def _connect(self) -> Bus:
        """Return the bus, waiting for it as long as it takes."""
        pause = 0.2
        while self._bus is None:
            try:
                token = read_secret(self._settings.nats_token_file)
                self._bus = await Bus.connect(self._settings.nats_url, token=token)
            except ShammahError as error:
                logger.warning("no bus yet, what is held is served: %s", error.message)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
        return self._bus

    async def _leave(self) -> None:
        if self._link is not None:
            self._link.cancel()
        self.held.end_watches()

    async def _close_engines(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.held.close(), _CLOSE_SECONDS)
        self.inference.close()
        self._loading.close()

    async def _close_bus(self) -> None:
        if self._bus is not None:
            await self._bus.close()

    def _readings(self) -> list[Reading]:
        def count(state: HoldState) -> float:
            return sum(held.state is state for held in self.held.snapshot())

        return [
            Reading("shammah_queue_length", "Calls that wait for a thread.", lambda: self.inference.queued),
            Reading("shammah_held_versions", "Releases that are READY.", lambda: count(HoldState.READY)),
            Reading("shammah_failed_versions", "Releases that could not be loaded.", lambda: count(HoldState.FAILED)),
            Reading("shammah_resident_bytes", "Memory of all loaded versions.", lambda: self.held.resident_bytes),
            Reading(
                "shammah_leases",
                "Calls that use a version now.",
                lambda: sum(held.leases for held in self.held.snapshot()),
            ),
            Reading(
                "shammah_bus_connected", "1 while the bus is there.", lambda: bool(self._bus and self._bus.connected)
            ),
        ]
