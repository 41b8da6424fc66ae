"""Jobs over a gateway that is killed with -9 in their middle and started again: real processes, scripted parts."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import trainer_pb2_grpc, types_pb2
from shammah_chassis.bus import Bus
from shammah_chassis.errors import InvalidInputError, PreconditionError
from shammah_chassis.examples import Envelope, Example
from shammah_chassis.releases import Champion, Wanted
from shammah_chassis.serving import Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.status import to_error
from support.chat_stub import ChatStub, serve_chat
from support.gateway_process import GatewayProcess, gateway_process
from support.scripted_pods import Cluster, run_cluster
from support.scripted_trainer import ScriptedTrainer
from support.services import until

Reply = TypeVar("Reply")
DONE, RUNNING, CANCELLED = types_pb2.JOB_STATE_DONE, types_pb2.JOB_STATE_RUNNING, types_pb2.JOB_STATE_CANCELLED
AGAIN = (("x-shammah-request-id", "step-1"),)


@dataclass
class Site:
    cluster: Cluster
    gateway: GatewayProcess
    trainer: ScriptedTrainer
    teacher: ChatStub
    bus: Bus

    def saved(self, **wanted: Any) -> bool:
        """Whether the file of some job has these values."""
        found = [json.loads(path.read_text()) for path in self.gateway.jobs.glob("*.json")]
        return any(all(record[name] == value for name, value in wanted.items()) for record in found)


async def call(rpc: Awaitable[Reply]) -> Reply:
    try:
        return await rpc
    except grpc.aio.AioRpcError as failure:
        raise to_error(failure) from failure


async def finish(method: Any, request: type[Any], job: str) -> Any:
    """Ask after a job until it has ended."""
    async with asyncio.timeout(60):
        while True:
            reply = await call(method(request(job=job)))
            if reply.job.state not in (types_pb2.JOB_STATE_QUEUED, RUNNING):
                return reply


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
async def site(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(run_cluster(tmp_path, nats_server.url))
        trainer = ScriptedTrainer(rows={"poems": (50, 0)})
        target = await stack.enter_async_context(serve_trainer(cluster, trainer))
        teacher = await stack.enter_async_context(serve_chat())
        (tmp_path / "internal.token").write_text(cluster.tokens["internal"])
        gateway = await stack.enter_async_context(
            gateway_process(
                cluster,
                trainer_target=target,
                internal_token_file=tmp_path / "internal.token",
                teacher="openai",
                openai_model="stand-in",
                openai_base_url=teacher.url,
                teach_agreement_share=0,
                http_port=0,
                audit_rate=0,
                explore_rate=0,
                role_timeout_seconds=10,
            )
        )
        first = await cluster.publish_release(verdict="base")
        await bus.kv_create("wanted", Wanted((first.id,)).to_json())
        await bus.kv_create("champion", Champion(first.id).to_json())
        yield Site(cluster, gateway, trainer, teacher, bus)


async def read_log(bus: Bus) -> list[Example]:
    return [example async for message in bus.read_log(1) for example in Envelope.decode(message.data).examples]


async def wait_for_champion(stub: Any) -> None:
    """Wait until the champion is held by every role, not only wanted."""
    async with asyncio.timeout(30):
        while True:
            status = await call(stub.GetStatus(pb.GetStatusRequest()))
            if status.champion and not any("no release serves" in text for text in status.warnings):
                return
            await asyncio.sleep(0.05)


async def test_a_round_is_followed_over_a_kill_and_started_once(site: Site) -> None:
    stub = await site.gateway.start()
    begun = await call(stub.Train(pb.GatewayServiceTrainRequest(), metadata=AGAIN))
    assert begun.job.state == RUNNING
    await site.gateway.kill()
    stub = await site.gateway.start()
    again = await call(stub.Train(pb.GatewayServiceTrainRequest(), metadata=AGAIN))
    assert again.job.id == begun.job.id
    result = {"release": "", "verdict": "held", "reasons": ["no better"], "examples_trained": 9}
    site.trainer.job = types_pb2.Job(id="T1", state=DONE, result_json=json.dumps(result))
    done = await finish(stub.Train, pb.GatewayServiceTrainRequest, begun.job.id)
    assert (done.job.state, done.verdict, done.examples_trained) == (DONE, "held", 9)
    # The trainer's key of the round is the job's id.
    assert site.trainer.asked == [begun.job.id]
    # The end is kept too.
    await site.gateway.kill()
    stub = await site.gateway.start()
    assert (await call(stub.Train(pb.GatewayServiceTrainRequest(), metadata=AGAIN))).verdict == "held"
    with pytest.raises(InvalidInputError, match="printable ASCII"):
        await call(stub.Train(pb.GatewayServiceTrainRequest(), metadata=(("x-shammah-request-id", "x" * 129),)))


async def test_a_kill_between_asking_the_trainer_and_noting_its_answer_asks_with_the_same_key(site: Site) -> None:
    site.trainer.gates["train"] = asyncio.Event()
    stub = await site.gateway.start()
    lost = asyncio.create_task(call(stub.Train(pb.GatewayServiceTrainRequest(), metadata=AGAIN)))
    await until(lambda: len(site.trainer.asked) == 1)
    await site.gateway.kill()
    await asyncio.gather(lost, return_exceptions=True)
    site.trainer.gates["train"].set()
    stub = await site.gateway.start()
    again = await call(stub.Train(pb.GatewayServiceTrainRequest(), metadata=AGAIN))
    assert again.job.state == RUNNING
    assert site.trainer.asked == [again.job.id, again.job.id]


async def test_a_second_round_is_refused_with_the_job_of_the_first_also_after_a_kill(site: Site) -> None:
    stub = await site.gateway.start()
    begun = await call(stub.Train(pb.GatewayServiceTrainRequest()))
    await site.gateway.kill()
    stub = await site.gateway.start()
    with pytest.raises(PreconditionError, match=begun.job.id):
        await call(stub.Train(pb.GatewayServiceTrainRequest()))
    assert len(site.trainer.asked) == 1
    # Cancelling the one that was resumed stops the round at the trainer.
    stopped = await call(stub.Train(pb.GatewayServiceTrainRequest(job=begun.job.id, cancel=True)))
    assert stopped.job.state == CANCELLED and "stopped" in stopped.job.error_message
    assert site.trainer.stopped == [("T1", begun.job.id)]


async def test_an_answer_of_the_teacher_is_not_paid_for_twice(site: Site) -> None:
    gate = site.cluster.script.gates["compare"] = asyncio.Event()
    stub = await site.gateway.start()
    await wait_for_champion(stub)
    request = pb.CompareResponsesRequest(query="What is the capital of France?")
    lost = asyncio.create_task(call(stub.CompareResponses(request, metadata=AGAIN)))
    await until(lambda: site.saved(saved={"teacher_response": "Paris"}))
    await site.gateway.kill()
    await asyncio.gather(lost, return_exceptions=True)
    gate.set()
    stub = await site.gateway.start()
    done = await call(stub.CompareResponses(request, metadata=AGAIN))
    assert (done.job.state, done.teacher_response, done.verdict) == (DONE, "Paris", "disagree")
    assert len(site.teacher.requests) == 1


async def test_examples_that_the_teacher_made_are_kept_over_a_kill(site: Site) -> None:
    rows = [{"query": f"What rhymes with word {n}?", "response": f"bird {n}", "grader": "exact"} for n in range(10)]
    site.teacher.text = json.dumps({"examples": rows})
    gate = site.trainer.gates["check"] = asyncio.Event()
    stub = await site.gateway.start()
    await wait_for_champion(stub)
    request = pb.GenerateTrainingDataRequest(category="poems", count=10)
    lost = asyncio.create_task(call(stub.GenerateTrainingData(request, metadata=AGAIN)))
    await until(lambda: len(site.trainer.checked) == 1)
    await site.gateway.kill()
    await asyncio.gather(lost, return_exceptions=True)
    assert await read_log(site.bus) == []
    gate.set()
    stub = await site.gateway.start()
    done = await call(stub.GenerateTrainingData(request, metadata=AGAIN))
    done = await finish(stub.GenerateTrainingData, pb.GenerateTrainingDataRequest, done.job.id)
    assert (done.job.state, done.queued) == (DONE, 10)
    assert len(site.teacher.requests) == 1
    assert sorted(example.response for example in await read_log(site.bus)) == sorted(row["response"] for row in rows)


async def test_an_ordered_stop_lets_a_job_go_on_at_the_next_start(site: Site) -> None:
    stub = await site.gateway.start()
    begun = await call(stub.Train(pb.GatewayServiceTrainRequest()))
    await site.gateway.kill(signal.SIGTERM)
    assert site.saved(id=begun.job.id, state="queued", resumes=0)
    stub = await site.gateway.start()
    result = {"release": "", "verdict": "held"}
    site.trainer.job = types_pb2.Job(id="T1", state=DONE, result_json=json.dumps(result))
    done = await finish(stub.Train, pb.GatewayServiceTrainRequest, begun.job.id)
    assert (done.job.state, done.verdict) == (DONE, "held")
