"""The whole gateway over gRPC: answers, scopes, status, swaps, the spool."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.bus import Bus
from shammah_chassis.errors import (
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    ShammahError,
    TooLongError,
    UnknownReleaseError,
)
from shammah_gateway.money.usage import Usage
from shammah_gateway.readings import list_readings
from support.example_values import make_example
from support.gateway_world import World, ask, call, read_log
from support.services import until, until_async


async def test_a_certified_query_is_answered_locally_and_can_be_rated(world: World) -> None:
    answer = await call(world.stub.Ask(ask("Where is Rome?")))
    assert (answer.route, answer.reason, answer.text) == (pb.ROUTE_LOCAL, "quality", "local: Where is Rome?")
    assert answer.versions.generator == world.first.generator
    done = await call(
        world.stub.SendFeedback(pb.SendFeedbackRequest(query_id=answer.query_id, rating=-1, correction="Italy"))
    )
    assert (done.effect, done.weight) == ("example", 10.0)
    (example,) = await read_log(world.bus, 1)
    assert (example.response, example.student_attempt, example.user) == ("Italy", "local: Where is Rome?", "owner")


async def test_a_forwarded_query_becomes_a_recorded_example_with_its_own_grader(world: World) -> None:
    world.cluster.script.quality = 0.1
    answer = await call(world.stub.Ask(ask("poems query number 3")))
    assert (answer.route, answer.reason, answer.text) == (pb.ROUTE_TEACHER, "low_quality", "answer 3")
    (example,) = await read_log(world.bus, 1)
    assert (example.category, example.grader, example.provenance.origin) == ("poems", "label", "teacher")


async def test_a_pod_that_is_gone_means_the_teacher(world: World) -> None:
    await world.cluster.services["generator"][0].stop()
    answer = await call(world.stub.Ask(ask("capitals query number 1")))
    assert (answer.route, answer.reason) == (pb.ROUTE_TEACHER, "unavailable")


LONELY_POD = """
import asyncio, sys
from pathlib import Path
from shammah_chassis.directory_store import DirectoryStore
from support.scripted_pods import Cluster, Script

class Telling(Script):
    def reply(self, query):
        print("streaming", flush=True)
        return super().reply(query)

async def main(folder, nats_url, port):
    cluster = Cluster(folder, DirectoryStore(folder / "store"), Telling(slow=600.0), nats_url, {})
    await cluster.start_pod("generator", "lonely", port=port)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""


async def test_a_kill_9_of_the_generator_in_the_middle_of_a_stream_means_the_teacher(world: World) -> None:
    (inside,) = world.cluster.services["generator"]
    (pod,) = world.gateway.pods.of_role("generator")
    await inside.stop()
    await until(lambda: not pod.connected)
    lonely = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LONELY_POD, str(world.cluster.folder), world.cluster.nats_url, str(inside.port)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    try:
        await until(lambda: pod.connected and pod.holds(world.first.id))
        asking = asyncio.create_task(call(world.stub.Ask(ask("capitals query number 1", role_timeout_seconds=60.0))))
        assert lonely.stdout is not None
        assert await lonely.stdout.readline() == b"streaming\n"
        lonely.kill()
        answer = await asking
        assert (answer.route, answer.reason, answer.text) == (pb.ROUTE_TEACHER, "unavailable", "answer 1")
        (example,) = await read_log(world.bus, 1)
        assert (example.response, example.student_attempt) == ("answer 1", "")
    finally:
        if lonely.returncode is None:
            lonely.kill()
        await lonely.wait()


async def test_a_generator_that_is_late_means_the_teacher(world: World) -> None:
    world.cluster.script.slow = 5.0
    answer = await call(world.stub.Ask(ask("capitals query number 1", role_timeout_seconds=0.3)))
    assert (answer.route, answer.reason, answer.text) == (pb.ROUTE_TEACHER, "late", "answer 1")


async def test_every_rpc_has_its_scope(world: World) -> None:
    assert (await call(world.guest.Ask(ask("Where is Rome?")))).route == pb.ROUTE_LOCAL
    for rpc, request in (
        (world.guest.CompareResponses, pb.CompareResponsesRequest(query="x")),
        (world.guest.GenerateTrainingData, pb.GenerateTrainingDataRequest(category="poems", count=10)),
        (world.guest.AnalyzeModel, pb.AnalyzeModelRequest()),
        (world.guest.Train, pb.GatewayServiceTrainRequest()),
        (world.guest.SubmitExamples, pb.SubmitExamplesRequest()),
        (world.guest.ListReleases, pb.ListReleasesRequest()),
        (world.guest.PromoteRelease, pb.PromoteReleaseRequest()),
        (world.guest.RollbackRelease, pb.RollbackReleaseRequest()),
        (world.guest.PinRelease, pb.PinReleaseRequest()),
        (world.guest.UnparkExamples, pb.GatewayServiceUnparkExamplesRequest()),
        (world.guest.TakeCheckpoint, pb.TakeCheckpointRequest()),
        (world.guest.GetStatus, pb.GetStatusRequest()),
    ):
        with pytest.raises(ForbiddenError):
            await call(rpc(request))


async def test_bad_input_has_the_right_code(world: World) -> None:
    stub = world.stub
    cases: list[tuple[Awaitable[Any], type[ShammahError]]] = [
        (stub.Ask(ask("")), InvalidInputError),
        (stub.Ask(ask("x" * 32_001)), TooLongError),
        (stub.Ask(ask("x", release="01ARZ3NDEKTSV4RRFFQ69G5FAV")), UnknownReleaseError),
        (stub.QueryLocalModel(pb.QueryLocalModelRequest()), InvalidInputError),
        (stub.CompareResponses(pb.CompareResponsesRequest()), InvalidInputError),
        (stub.GenerateTrainingData(pb.GenerateTrainingDataRequest(category="poems", count=9)), InvalidInputError),
        (stub.GenerateTrainingData(pb.GenerateTrainingDataRequest(category="poems", count=101)), InvalidInputError),
        (stub.GenerateTrainingData(pb.GenerateTrainingDataRequest(category="nope", count=10)), NotFoundError),
        (
            stub.GenerateTrainingData(pb.GenerateTrainingDataRequest(category="poems", count=10, difficulty="odd")),
            InvalidInputError,
        ),
        (stub.AnalyzeModel(pb.AnalyzeModelRequest(test_count=49)), InvalidInputError),
        (stub.AnalyzeModel(pb.AnalyzeModelRequest(test_count=201)), InvalidInputError),
        (stub.AnalyzeModel(pb.AnalyzeModelRequest(categories=["nope"])), NotFoundError),
        (stub.AnalyzeModel(pb.AnalyzeModelRequest()), PreconditionError),
        (stub.GetJob(pb.GetJobRequest(id="nope")), NotFoundError),
        (stub.SubmitExamples(pb.SubmitExamplesRequest()), InvalidInputError),
        (stub.RollbackRelease(pb.RollbackReleaseRequest()), PreconditionError),
        (stub.SendFeedback(pb.SendFeedbackRequest(query_id="nope", rating=1)), NotFoundError),
    ]
    for rpc, kind in cases:
        with pytest.raises(kind):
            await call(rpc)


async def test_status_and_releases_tell_the_state(world: World) -> None:
    await call(world.stub.Ask(ask("Where is Rome?")))
    status = await call(world.stub.GetStatus(pb.GetStatusRequest()))
    assert (status.champion, status.queries, status.local, status.queue_size) == (world.first.id, 1, 1, 7)
    assert {part.name for part in status.parts if part.ready} == {
        *("router", "generator", "validator", "trainer", "nats", "teacher", "audit log")
    }
    assert status.promise.startswith("promise not monitored")
    assert (status.money.baseline_model, status.money.at_cap) == ("claude-sonnet-5-5", "refuse")
    listed = await call(world.stub.ListReleases(pb.ListReleasesRequest()))
    assert [(entry.id, entry.state) for entry in listed.releases] == [(world.first.id, "champion")]
    pinned = await call(world.stub.PinRelease(pb.PinReleaseRequest(release=world.first.id, pinned=True)))
    assert pinned.release.pinned


async def test_money_is_in_status_and_metrics(world: World) -> None:
    await call(world.stub.Ask(ask("Where is Rome?")))
    world.cluster.script.quality = 0.1
    await call(world.stub.Ask(ask("poems query number 1")))
    money = (await call(world.stub.GetStatus(pb.GetStatusRequest()))).money
    answers = {entry.purpose: entry for entry in money.spent}["answer"]
    # Recorded answers have a known price: nothing.
    assert (answers.calls, answers.unknown_calls, answers.usd, money.spent_usd) == (1, 0, "0", "0")
    (saved,) = money.saved
    assert (saved.baseline, saved.answers) == ("claude-sonnet-5-5", 1)
    world.gateway.ledger.book("teach", model="claude-sonnet-5-5", usage=Usage(output_tokens=100_000))
    shown = {reading.name: reading.read() for reading in list_readings(world.gateway)}
    assert shown["shammah_spent_teach_usd_total"] == 1.0
    assert shown["shammah_net_usd"] == pytest.approx(float(saved.estimated_usd) - 1.0)
    assert shown["shammah_teacher_calls_total"] == 1


async def test_200_queries_over_a_swap_and_a_rollback_none_fails_is_mixed_or_forwarded(world: World) -> None:
    world.cluster.script.slow = 0.05
    second = await world.cluster.publish_release()
    asking = [asyncio.create_task(call(world.stub.Ask(ask(f"q {index}")))) for index in range(100)]
    promoted = await call(world.stub.PromoteRelease(pb.PromoteReleaseRequest(release=second.id)))
    assert (promoted.champion, promoted.previous) == (second.id, world.first.id)
    asking += [asyncio.create_task(call(world.stub.Ask(ask(f"q {index}")))) for index in range(100)]
    back = await call(world.stub.RollbackRelease(pb.RollbackReleaseRequest()))
    assert (back.champion, back.previous) == (world.first.id, second.id) and back.seconds < 10
    answers = await asyncio.gather(*asking)
    by_id = {world.first.id: world.first, second.id: second}
    for answer in answers:
        release = by_id[answer.versions.release]
        assert answer.route == pb.ROUTE_LOCAL, answer.reason
        assert (answer.versions.router, answer.versions.generator, answer.versions.validator) == (
            release.router,
            release.generator,
            release.validator,
        )
    assert (await call(world.stub.Ask(ask("after")))).versions.release == world.first.id

    async def checkpointed() -> bool:
        return bool(await world.cluster.store.list_checkpoints())

    await until_async(checkpointed)
    (checkpoint, *_) = await world.cluster.store.list_checkpoints()
    assert checkpoint.release in by_id and checkpoint.queries >= 100


async def test_examples_are_spooled_while_the_bus_is_away_and_sent_when_it_is_back(
    tmp_path: Path, own_nats: Any
) -> None:
    from shammah_chassis.spool import Spool
    from shammah_gateway.recorder import Recorder

    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    recorder = Recorder(bus, Spool(tmp_path / "spool", 1 << 20))
    recorder.start()
    own_nats.kill()
    await until(lambda: not bus.connected)
    kept = await recorder.record("teacher", [make_example(f"q {index}") for index in range(40)])
    assert (kept.queued, kept.spooled, recorder.spooled) == (40, True, 2)
    own_nats.start()

    async def drained() -> bool:
        return recorder.spooled == 0

    await until_async(drained)
    assert len(await read_log(bus, 40)) == 40
    await recorder.close()
    await bus.close()
