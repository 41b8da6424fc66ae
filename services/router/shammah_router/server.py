"""gRPC shell of the router: messages to plain values and back. What routing is, the engine knows."""

from __future__ import annotations

import asyncio

from grpc import aio
from shammah.v1 import router_pb2, router_pb2_grpc
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, Loader
from shammah_chassis.pod import Pod
from shammah_chassis.serving import ServiceParts

from shammah_router.config import RouterSettings
from shammah_router.engine import RouterEngine, RouteResult

SERVICE_NAME = "shammah.v1.RouterService"
SHORT_QUERY = 256
"""Characters of a query (about 60 tokens, 7 ms) that may be judged on the event loop while no other call waits."""
Context = aio.ServicerContext[router_pb2.RouteRequest, router_pb2.RouteResponse]


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Serves the router role."""

    def __init__(self, held: HeldVersions[RouterEngine], inference: BoundedExecutor) -> None:
        self._held = held
        self._inference = inference
        self._calls = 0

    async def Route(self, request: router_pb2.RouteRequest, context: Context) -> router_pb2.RouteResponse:
        """Judge one query with the release that the request names."""
        if not request.query.strip():
            raise InvalidInputError("query is empty; it needs at least one character that is no space")
        with self._held.lease(request.release) as leased:
            result = await self._judge(leased.value, request.query)
        return router_pb2.RouteResponse(
            local_probability=result.local_probability,
            category=result.category,
            category_probability=result.category_probability,
            truncated=result.truncated,
            release=leased.release,
            version=leased.version,
        )

    async def _judge(self, engine: RouterEngine, query: str) -> RouteResult:
        """Judge a short query that is alone right here, which saves waking a thread; else in the bounded executor."""
        self._calls += 1
        try:
            # Calls that have arrived meanwhile are counted before it is decided.
            await asyncio.sleep(0)
            if self._calls == 1 and len(query) <= SHORT_QUERY:
                return engine.route([query])[0]
            return (await self._inference.run(engine.route, [query]))[0]
        finally:
            self._calls -= 1


async def build(settings: RouterSettings) -> ServiceParts:
    """Put the router's pod together."""
    pod = Pod(settings, role="router", loader=make_loader(settings))
    add = router_pb2_grpc.add_RouterServiceServicer_to_server
    return await pod.build(lambda made: (add, RouterServicer(made.held, made.inference), SERVICE_NAME))


def make_loader(settings: RouterSettings) -> Loader[RouterEngine]:
    """Say how a router version is loaded; the engine tests itself by a probe query."""
    return Loader(
        load=lambda folder, manifest, _: RouterEngine(folder, manifest, settings.session_threads),
        close=RouterEngine.close,
        measure=lambda engine: engine.resident_bytes,
    )
