"""A gateway over gRPC whose replies and failures a test sets; it keeps what it was asked."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message as Proto
from grpc import aio
from shammah.v1 import gateway_pb2, gateway_pb2_grpc
from shammah_chassis.errors import ShammahError
from shammah_chassis.status import status_of, trailers_of

METHODS = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].methods_by_name


@dataclass
class ScriptedGateway:
    """`replies` by method; `failures` are used up first: a named error, a bare gRPC status, or "hang"."""

    replies: dict[str, Proto] = field(default_factory=dict)
    failures: list[ShammahError | grpc.StatusCode | str] = field(default_factory=list)
    asked: list[tuple[str, Proto]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    seconds_left: list[float] = field(default_factory=list)
    address: str = ""

    async def serve(self, method: str, request: Proto, context: aio.ServicerContext[Any, Any]) -> Proto:
        self.asked.append((method, request))
        self.metadata.append({str(key): str(value) for key, value in context.invocation_metadata() or ()})
        self.seconds_left.append(context.time_remaining() or 0.0)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, ShammahError):
            await context.abort(status_of(failure), failure.message, trailers_of(failure))
        if isinstance(failure, grpc.StatusCode):
            await context.abort(failure, "told to fail")
        if failure == "hang":
            await asyncio.Event().wait()
        reply = self.replies.get(method)
        return gateway_pb2_reply(method) if reply is None else reply


def gateway_pb2_reply(method: str) -> Proto:
    """An empty reply of a method."""
    reply: Proto = getattr(gateway_pb2, METHODS[method].output_type.name)()
    return reply


@asynccontextmanager
async def serve_scripted(given: ScriptedGateway | None = None, *, port: int = 0) -> AsyncIterator[ScriptedGateway]:
    """Serve a scripted gateway (a plain one without) on a loopback port (0: a free one) while the block runs."""
    scripted = given or ScriptedGateway()

    def handler(name: str) -> Any:
        async def handle(self: Any, request: Proto, context: aio.ServicerContext[Any, Any]) -> Proto:
            return await scripted.serve(name, request, context)

        return handle

    servicer = type("Servicer", (gateway_pb2_grpc.GatewayServiceServicer,), {name: handler(name) for name in METHODS})
    server = aio.server()
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer(), server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield scripted
    finally:
        await server.stop(None)


async def run_command(gateway: ScriptedGateway, *words: str) -> tuple[int | None, str]:
    """Run the command line against a scripted gateway, as a user would; return its exit code and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shammah_gateway.cli", *words),
        env={**os.environ, "SHAMMAH_GATEWAY": gateway.address, "SHAMMAH_TOKEN": "t0ken"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
