"""gRPC shell of the generator: streams of a leased version, and their end when the client leaves.

How text is made, the engine knows; how messages look, `wire`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from grpc import aio
from shammah.v1 import generator_pb2, generator_pb2_grpc
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.held import HeldVersions
from shammah_chassis.metrics import Reading
from shammah_chassis.pod import Pod
from shammah_chassis.serving import ServiceParts

from shammah_generator.config import GeneratorSettings
from shammah_generator.loading import GeneratorVersions, HeldGenerator
from shammah_generator.streams import stream_batch, stream_response
from shammah_generator.wire import read_request, write_chunk, write_response

SERVICE_NAME = "shammah.v1.GeneratorService"
MAX_ITEMS = 1024
Context = aio.ServicerContext[generator_pb2.GenerateRequest, generator_pb2.GenerateResponse]
BatchContext = aio.ServicerContext[generator_pb2.GenerateBatchRequest, generator_pb2.GenerateBatchResponse]


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Serves the generator role."""

    def __init__(self, held: HeldVersions[HeldGenerator], settings: GeneratorSettings) -> None:
        self._held = held
        self._settings = settings

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        """Stream one response; a client that leaves frees its slot."""
        wanted = read_request(
            request.messages,
            request.sampling,
            default_max_tokens=self._settings.default_max_tokens,
            context=self._settings.context,
        )
        with self._held.lease(request.release) as leased:
            async with aclosing(stream_response(leased.value.engine, wanted)) as chunks:
                async for chunk in chunks:
                    yield write_chunk(chunk, release=leased.release, version=leased.version)

    async def GenerateBatch(
        self, request: generator_pb2.GenerateBatchRequest, context: BatchContext
    ) -> AsyncIterator[generator_pb2.GenerateBatchResponse]:
        """Stream whole responses as they end. Single calls go first; an eighth of the slots stays free for them."""
        if not 0 < len(request.items) <= MAX_ITEMS:
            raise InvalidInputError(f"{len(request.items)} items; allowed: 1 to {MAX_ITEMS}")
        wanted = [
            read_request(
                item.messages,
                item.sampling,
                default_max_tokens=self._settings.default_max_tokens,
                context=self._settings.context,
            )
            for item in request.items
        ]
        with self._held.lease(request.release) as leased:
            async with aclosing(stream_batch(leased.value.engine, wanted)) as ended:
                async for index, whole in ended:
                    yield write_response(index, whole, release=leased.release, version=leased.version)


async def build(settings: GeneratorSettings) -> ServiceParts:
    """Put the generator's pod together."""
    versions = GeneratorVersions(settings)
    pod = Pod(settings, role="generator", loader=versions.make_loader())
    add = generator_pb2_grpc.add_GeneratorServiceServicer_to_server
    return await pod.build(
        lambda made: (add, GeneratorServicer(made.held, settings), SERVICE_NAME), readings=_readings(pod, versions)
    )


def _readings(pod: Pod[HeldGenerator], versions: GeneratorVersions) -> list[Reading]:
    def add_up(name: str) -> float:
        return float(sum(getattr(held.engine, name) for held in pod.held.loaded))

    return [
        Reading(
            "shammah_generator_tokens",
            "Tokens drawn since the start.",
            lambda: versions.retired_tokens + add_up("tokens_generated"),
            total=True,
        ),
        Reading("shammah_generator_active_slots", "Responses that grow now.", lambda: add_up("active")),
        Reading("shammah_generator_queue_length", "Requests that wait for a slot.", lambda: add_up("queued")),
        Reading("shammah_generator_kv_bytes", "Size of the key/value buffers.", lambda: add_up("kv_bytes")),
        Reading("shammah_generator_prefix_bytes", "Size of kept prompt beginnings.", lambda: add_up("prefix_bytes")),
        Reading(
            "shammah_generator_reused_tokens",
            "Prompt tokens that did not have to be computed.",
            lambda: add_up("reused_tokens"),
        ),
        Reading(
            "shammah_generator_failures", "Computations that failed.", lambda: add_up("session_failures"), total=True
        ),
    ]
