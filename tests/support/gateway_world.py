"""A whole gateway over gRPC: real event bus, store, pods' chassis and scopes; scripted roles and trainer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import gateway_pb2_grpc, trainer_pb2_grpc, types_pb2
from shammah_chassis.bus import Bus
from shammah_chassis.channels import channel
from shammah_chassis.examples import Envelope, Example
from shammah_chassis.releases import Champion, Release, Wanted
from shammah_chassis.serving import Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.status import to_error
from shammah_gateway.config import GatewaySettings
from shammah_gateway.gateway import Gateway
from shammah_gateway.opening import open_gateway
from shammah_gateway.server import SERVICE_NAME, GatewayServicer
from support.scripted_pods import Cluster, run_cluster
from support.scripted_trainer import ScriptedTrainer
from support.services import until

Reply = TypeVar("Reply")


@dataclass
class World:
    cluster: Cluster
    gateway: Gateway
    trainer: ScriptedTrainer
    bus: Bus
    first: Release
    stub: Any
    guest: Any
    maker: Any


def write_workload(path: Path) -> Path:
    rows = [
        {
            "id": f"{category}-{index}",
            "source": "made",
            "license": "CC0",
            "category": category,
            "query": f"{category} query number {index}",
            "reference": f"answer {index}",
            "metadata": {"family": category, "metric": "label", "split": "teach"},
        }
        for category in ("capitals", "poems")
        for index in range(40)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@asynccontextmanager
async def serve_trainer(cluster: Cluster, trainer: ScriptedTrainer) -> AsyncIterator[str]:
    async def build() -> ServiceParts:
        add = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
        return ServiceParts([(add, trainer)], ["shammah.v1.TrainerService"], ready=lambda: True)

    service = Service(ServiceSettings(**cluster.settings("trainer")), name="trainer")
    await service.start(build)
    try:
        yield f"127.0.0.1:{service.port}"
    finally:
        await service.stop()


@pytest.fixture
async def world(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(run_cluster(tmp_path, nats_server.url))
        trainer = ScriptedTrainer(rows={"capitals": (50, 0), "poems": (0, 0)})
        target = await stack.enter_async_context(serve_trainer(cluster, trainer))
        (tmp_path / "internal.token").write_text(cluster.tokens["internal"])
        settings = GatewaySettings(
            **cluster.settings("gateway"),
            **{f"{role}_targets": targets for role, targets in cluster.targets.items()},
            trainer_target=target,
            internal_token_file=tmp_path / "internal.token",
            teacher="recorded",
            recorded_files=(write_workload(tmp_path / "w.jsonl"),),
            audit_rate=0.0,
            explore_rate=0.0,
            role_timeout_seconds=10.0,
        )
        opened: list[Gateway] = []

        async def build() -> ServiceParts:
            gateway = await open_gateway(settings)
            gateway.start()
            opened.append(gateway)
            add = gateway_pb2_grpc.add_GatewayServiceServicer_to_server
            return ServiceParts(
                [(add, GatewayServicer(gateway))], [SERVICE_NAME], ready=lambda: True, close=[gateway.close]
            )

        service = Service(settings, name="gateway")
        await service.start(build)
        stack.push_async_callback(service.stop)
        first = await cluster.publish_release(verdict="base")
        await bus.kv_create("wanted", Wanted((first.id,)).to_json())
        await bus.kv_create("champion", Champion(first.id).to_json())
        stubs = []
        for caller in ("owner", "guest", "maker"):
            link = channel(f"127.0.0.1:{service.port}", cluster.tokens[caller])
            stack.push_async_callback(link.close)
            stubs.append(gateway_pb2_grpc.GatewayServiceStub(link))
        gateway = opened[0]
        await until(lambda: (now := gateway.releases.champion()) is not None and now.id == first.id)
        yield World(cluster, gateway, trainer, bus, first, *stubs)


async def call(rpc: Awaitable[Reply]) -> Reply:
    try:
        return await rpc
    except grpc.aio.AioRpcError as failure:
        raise to_error(failure) from failure


def ask(text: str, **changes: Any) -> pb.AskRequest:
    return pb.AskRequest(messages=[types_pb2.Message(role="user", content=text)], **changes)


async def read_log(bus: Bus, count: int) -> list[Example]:
    found: list[Example] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found = [example async for message in bus.read_log(1) for example in Envelope.decode(message.data).examples]
    return found
