"""A gRPC client of the gateway for the command line.

Knows the contract and the error words, nothing of what stands behind the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
from shammah.v1 import gateway_pb2_grpc
from shammah_chassis.interceptors import channel, to_error

from shammah_gateway.cli.paths import Connection

T = TypeVar("T")


class GatewayClient:
    """One channel to one gateway; use as an async context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> GatewayClient:
        self._channel = channel(self._connection.target, self._connection.token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()

    @property
    def stub(self) -> gateway_pb2_grpc.GatewayServiceAsyncStub:
        """Return the typed stub."""
        if self._channel is None:
            raise RuntimeError("GatewayClient is used before it is entered")
        return gateway_pb2_grpc.GatewayServiceStub(self._channel)

    async def call(
        self,
        method: Callable[..., Any],
        request: object,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - the caller knows its response
        """Call one method of the stub; `metadata` goes with it.

        Raises:
            ShammahError: the named error that the gateway answered with.
        """
        try:
            return await cast(
                "Awaitable[Any]", method(request, timeout=timeout, metadata=tuple((metadata or {}).items()))
            )
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from error


def run(connection: Connection, work: Callable[[GatewayClient], Coroutine[Any, Any, T]]) -> T:
    """Open a client, run one coroutine with it, close it."""

    async def inner() -> T:
        async with GatewayClient(connection) as client:
            return await work(client)

    return asyncio.run(inner())
