"""A gateway that is killed with -9 while a Message Batch runs: the real SDK, the strict stub, a real event bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import trainer_pb2_grpc, types_pb2
from shammah_chassis.bus import Bus
from shammah_chassis.examples import Envelope
from shammah_chassis.releases import Champion, Wanted
from shammah_chassis.serving import Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.status import to_error
from support.gateway_process import GatewayProcess, gateway_process
from support.scripted_pods import run_cluster
from support.scripted_trainer import ScriptedTrainer
from support.services import until
from support.writing_stub import WritingStub, serve_writing

Reply = TypeVar("Reply")
AGAIN = (("x-shammah-request-id", "bulk-1"),)
OPEN = (types_pb2.JOB_STATE_QUEUED, types_pb2.JOB_STATE_RUNNING)


@dataclass
class Site:
    gateway: GatewayProcess
    stub: WritingStub
    bus: Bus


async def call(rpc: Awaitable[Reply]) -> Reply:
    try:
        return await rpc
    except grpc.aio.AioRpcError as failure:
        raise to_error(failure) from failure


@pytest.fixture
async def site(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(run_cluster(tmp_path, nats_server.url))
        trainer = ScriptedTrainer(rows={"codes": (50, 0)})

        async def build() -> ServiceParts:
            add = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
            return ServiceParts([(add, trainer)], ["shammah.v1.TrainerService"], ready=lambda: True)

        service = Service(ServiceSettings(**cluster.settings("trainer")), name="trainer")
        await service.start(build)
        stack.push_async_callback(service.stop)
        stub = await stack.enter_async_context(serve_writing())
        (tmp_path / "internal.token").write_text(cluster.tokens["internal"])
        (tmp_path / "claude.key").write_text(stub.key)
        (tmp_path / "claude.key").chmod(0o600)
        gateway = await stack.enter_async_context(
            gateway_process(
                cluster,
                trainer_target=f"127.0.0.1:{service.port}",
                internal_token_file=tmp_path / "internal.token",
                teacher="anthropic",
                anthropic_base_url=stub.url,
                anthropic_key_file=tmp_path / "claude.key",
                teach_batch_poll_seconds=0.05,
                http_port=0,
                audit_rate=0,
                explore_rate=0,
                role_timeout_seconds=10,
            )
        )
        first = await cluster.publish_release(verdict="base")
        await bus.kv_create("wanted", Wanted((first.id,)).to_json())
        await bus.kv_create("champion", Champion(first.id).to_json())
        yield Site(gateway, stub, bus)


async def test_a_batch_is_paid_once_though_the_gateway_is_killed_while_it_runs(site: Site) -> None:
    site.stub.batches.polls_until_ended = 1_000_000
    stub = await site.gateway.start()
    request = pb.GenerateTrainingDataRequest(category="codes", count=60, difficulty="hard")
    lost = asyncio.create_task(call(stub.GenerateTrainingData(request, metadata=AGAIN)))
    await until(lambda: any(batch.polls > 1 for batch in site.stub.batches.held.values()))
    await site.gateway.kill()
    await asyncio.gather(lost, return_exceptions=True)
    # One of them was doubted, one request of the batch expired.
    site.stub.doubted = {7}
    site.stub.batches.faults = ["expired"]
    site.stub.batches.polls_until_ended = 1
    stub = await site.gateway.start()
    done = await call(stub.GenerateTrainingData(request, metadata=AGAIN))
    async with asyncio.timeout(60):
        while done.job.state in OPEN:
            done = await call(stub.GenerateTrainingData(pb.GenerateTrainingDataRequest(job=done.job.id)))
    assert done.job.state == types_pb2.JOB_STATE_DONE, done.job.error_message
    assert (done.queued, done.missing, done.note) == (60, 0, "")
    assert {row.reason: row.count for row in done.rejected} == {"disagreement": 1}
    # One batch of six; its expired request, and the doubted example, were asked again directly.
    assert site.stub.batches.made == 1 and len(site.stub.wishes) == 5 + 1 + 1
    examples = [row async for message in site.bus.read_log(1) for row in Envelope.decode(message.data).examples]
    assert len({row.id for row in examples}) == len(examples) == 60
    status = await call(stub.GetStatus(pb.GetStatusRequest()))
    assert status.champion
