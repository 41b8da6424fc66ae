"""Client side of gRPC: a channel to one of our services, with our token and sane limits.

It does not know the services beyond their names, which it needs to say which calls may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from grpc import aio

from shammah_chassis.logs import request_id

MAX_MESSAGE_BYTES = 64 << 20
REQUEST_ID_KEY = "x-request-id"
# Calls that change nothing: a repeat after UNAVAILABLE is harmless. gRPC itself never repeats a stream that has begun
# to answer.
_IDEMPOTENT: tuple[dict[str, str], ...] = (
    {"service": "shammah.v1.RouterService"},
    {"service": "shammah.v1.GeneratorService"},
    {"service": "shammah.v1.ValidatorService"},
    {"service": "shammah.v1.ModelService"},
    *(
        {"service": "shammah.v1.TrainerService", "method": method}
        for method in ("GetTrainJob", "StopTrain", "Status", "SampleExamples", "CheckExamples", "ForgetExamples")
    ),
    *(
        {"service": "shammah.v1.GatewayService", "method": method}
        for method in ("GetJob", "ListReleases", "GetStatus", "QueryLocalModel", "ForgetRequest")
    ),
)
_RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
Request = TypeVar("Request")
Call = TypeVar("Call")


def channel(target: str, token: str | None, *, health_service: str | None = None) -> aio.Channel:
    """Open a channel to `target` ("host:port", or "ipv4:a:1,b:2" for several pods in turn) that sends `token`.

    With `health_service` ("" for the whole server) pods that are not SERVING get no call. Nothing is sent before the
    first call; close it by `await channel.close()`.
    """
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": list(_IDEMPOTENT), "retryPolicy": _RETRY}],
        # Under a wide failure repeats stop by themselves (gRFC A6).
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    }
    if health_service is not None:
        config["healthCheckConfig"] = {"serviceName": health_service}
    options = (
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.service_config", json.dumps(config)),
        # Two channels to one target must not share a connection: each has its own token and its own life.
        ("grpc.use_local_subchannel_pool", 1),
    )
    return aio.insecure_channel(target, options=options, interceptors=[_UnaryHeaders(token), _StreamHeaders(token)])


def _add_headers(details: aio.ClientCallDetails, token: str | None) -> aio.ClientCallDetails:
    metadata = aio.Metadata(*(details.metadata or ()))
    if token and metadata.get("authorization") is None:
        metadata.add("authorization", f"Bearer {token}")
    if (current := request_id.get()) and metadata.get(REQUEST_ID_KEY) is None:
        metadata.add(REQUEST_ID_KEY, current)
    return aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


class _UnaryHeaders(aio.UnaryUnaryClientInterceptor):
    """Adds the token and the request id to calls with one answer."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def intercept_unary_unary(
        self,
        continuation: Callable[[aio.ClientCallDetails, Request], Awaitable[Call]],
        client_call_details: aio.ClientCallDetails,
        request: Request,
    ) -> Call:
        return await continuation(_add_headers(client_call_details, self._token), request)


class _StreamHeaders(aio.UnaryStreamClientInterceptor):
    """The same for calls with a stream of answers (grpc.aio allows one kind a class)."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def intercept_unary_stream(
        self,
        continuation: Callable[[aio.ClientCallDetails, Request], Awaitable[Call]],
        client_call_details: aio.ClientCallDetails,
        request: Request,
    ) -> Call:
        return await continuation(_add_headers(client_call_details, self._token), request)
