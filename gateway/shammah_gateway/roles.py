"""Clients of the three serving roles: choose a pod that holds the release, keep the deadline, try a second pod once.

Plain values in and out; all failures are named errors. It does not know what the answers mean.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import TypeVar

import grpc
from shammah.v1 import (
    generator_pb2,
    generator_pb2_grpc,
    router_pb2,
    types_pb2,
    validator_pb2,
)
from shammah_chassis.errors import ShammahError, UnavailableError, UnknownReleaseError
from shammah_chassis.examples import Message
from shammah_chassis.status import to_error

from shammah_gateway.pods import Pod, Pods
from shammah_gateway.values import Compared, Finish, Generated, Judged, Routed

Reply = TypeVar("Reply")
# The pod that was chosen, and one other: more would only spend the caller's patience.
ATTEMPTS = 2
_RISKS: Mapping[int, str] = {
    validator_pb2.RISK_LEVEL_LOW: "low",
    validator_pb2.RISK_LEVEL_MEDIUM: "medium",
    validator_pb2.RISK_LEVEL_HIGH: "high",
}
STATISTICS = tuple(field.name for field in types_pb2.GenerationStatistics.DESCRIPTOR.fields)


class _AnswerBegunError(Exception):
    """A stream that broke after its first message: it must not be repeated elsewhere."""

    def __init__(self, error: ShammahError) -> None:
        self.error = error


class RoleClients:
    """The real `ports.Roles`, over gRPC."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._turn = count()

    async def route(self, release: str, query: str, *, timeout: float) -> Routed:
        """As `ports.Roles.route`."""
        request = router_pb2.RouteRequest(release=release, query=query)

        async def call(pod: Pod, left: float) -> Routed:
            reply = await pod.router.Route(request, timeout=left)
            return Routed(
                reply.local_probability, reply.category, reply.category_probability, reply.truncated, reply.version
            )

        return await self._call("router", release, timeout, call)

    async def generate(
        self, release: str, messages: Sequence[Message], *, max_tokens: int, temperature: float, timeout: float
    ) -> Generated:
        """As `ports.Roles.generate`."""
        request = generator_pb2.GenerateRequest(
            release=release,
            messages=[types_pb2.Message(role=turn.role, content=turn.content) for turn in messages],
            sampling=generator_pb2.Sampling(max_tokens=max_tokens, temperature=temperature),
        )

        async def call(pod: Pod, left: float) -> Generated:
            return await _collect(pod.generator, request, left)

        return await self._call("generator", release, timeout, call)

    async def validate(
        self,
        release: str,
        query: str,
        response: str,
        *,
        category: str,
        statistics: Mapping[str, float] | None,
        timeout: float,
    ) -> Judged:
        """As `ports.Roles.validate`."""
        request = validator_pb2.ValidateRequest(
            release=release,
            query=query,
            response=response,
            category=category,
            statistics=_pack_statistics(statistics),
        )

        async def call(pod: Pod, left: float) -> Judged:
            reply = await pod.validator.Validate(request, timeout=left)
            return Judged(
                quality=reply.quality,
                uncertainty=reply.uncertainty,
                on_topic=reply.scores.on_topic,
                coherence=reply.scores.coherence,
                hallucination=reply.scores.hallucination,
                risk=_RISKS.get(reply.scores.hallucination_risk, ""),
                truncated=reply.truncated,
                version=reply.version,
            )

        return await self._call("validator", release, timeout, call)

    async def compare(
        self,
        release: str,
        query: str,
        response_a: str,
        response_b: str,
        *,
        category: str,
        statistics_a: Mapping[str, float] | None,
        timeout: float,
    ) -> Compared:
        """As `ports.Roles.compare`."""
        request = validator_pb2.CompareRequest(
            release=release,
            query=query,
            category=category,
            response_a=response_a,
            response_b=response_b,
            statistics_a=_pack_statistics(statistics_a),
        )

        async def call(pod: Pod, left: float) -> Compared:
            reply = await pod.validator.Compare(request, timeout=left)
            return Compared(
                reply.quality_a, reply.quality_b, reply.cosine, reply.same_facts, reply.similarity, reply.version
            )

        return await self._call("validator", release, timeout, call)

    async def _call(
        self, role: str, release: str, timeout: float, call: Callable[[Pod, float], Awaitable[Reply]]
    ) -> Reply:
        """Call a pod that holds the release; once more on another one if the first is away."""
        pods = self._pods.holding(role, release)
        if not pods:
            raise UnavailableError(f"no {role} holds the release {release}")
        end = time.monotonic() + timeout
        start = next(self._turn)
        failure: ShammahError = UnavailableError(f"no {role} answered")
        for step in range(min(ATTEMPTS, len(pods))):
            try:
                return await call(pods[(start + step) % len(pods)], max(0.001, end - time.monotonic()))
            except grpc.aio.AioRpcError as error:
                failure = to_error(error)
                # A pod that has just let the release go is as good as away; any other error would be the same again.
                if not isinstance(failure, UnavailableError | UnknownReleaseError):
                    break
            except _AnswerBegunError as error:
                failure = error.error
                break
        raise failure


async def _collect(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub, request: generator_pb2.GenerateRequest, timeout: float
) -> Generated:
    """Read a stream of the generator to its end."""
    texts: list[str] = []
    begun = False
    try:
        async for reply in stub.Generate(request, timeout=timeout):
            begun = True
            texts.append(reply.text)
            if reply.finish_reason:
                finish: Finish = "stop" if reply.finish_reason == generator_pb2.FINISH_REASON_STOP else "length"
                return Generated("".join(texts), finish, _unpack_statistics(reply.statistics), reply.version)
    except grpc.aio.AioRpcError as error:
        if begun:
            raise _AnswerBegunError(to_error(error)) from error
        raise
    raise _AnswerBegunError(UnavailableError("the generator ended its stream without a last message"))


def _pack_statistics(statistics: Mapping[str, float] | None) -> types_pb2.GenerationStatistics | None:
    if statistics is None:
        return None
    packed = types_pb2.GenerationStatistics()
    for name, value in statistics.items():
        setattr(packed, name, int(value) if name in ("length", "prompt_tokens") else value)
    return packed


def _unpack_statistics(statistics: types_pb2.GenerationStatistics) -> dict[str, float]:
    return {name: float(getattr(statistics, name)) for name in STATISTICS}
