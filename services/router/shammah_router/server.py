"""gRPC shell of the router: messages to plain values and back. What routing is, the engine knows."""

from __future__ import annotations

from grpc import aio
from shammah.v1 import router_pb2, router_pb2_grpc
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, Loader
from shammah_chassis.pod import Pod
from shammah_chassis.serving import ServiceParts

from shammah_router.config import RouterSettings
from shammah_router.engine import RouterEngine

SERVICE_NAME = "shammah.v1.RouterService"
Context = aio.ServicerContext[router_pb2.RouteRequest, router_pb2.RouteResponse]


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Serves the router role."""

    def __init__(self, held: HeldVersions[RouterEngine], inference: BoundedExecutor) -> None:
        self._held = held
        self._inference = inference

    async def Route(self, request: router_pb2.RouteRequest, context: Context) -> router_pb2.RouteResponse:
        """Judge one query with the release that the request names."""
        if not request.query.strip():
            raise InvalidInputError("query is empty; it needs at least one character that is no space")
        with self._held.lease(request.release) as leased:
            (result,) = await self._inference.run(leased.value.route, [request.query])
        return router_pb2.RouteResponse(
            local_probability=result.local_probability,
            category=result.category,
            category_probability=result.category_probability,
            truncated=result.truncated,
            release=leased.release,
            version=leased.version,
        )


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
