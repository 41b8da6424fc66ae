"""Both clients against a gateway over real gRPC whose replies and failures are set."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import types_pb2
from shammah_chassis import errors as theirs
from shammah_client import AsyncClient, Client, Example, errors
from shammah_client.retry import RetryPolicy
from support.scripted_gateway import ScriptedGateway, serve_scripted

QUICK = RetryPolicy(first_pause=0.01)
# Calls one method of a client of either kind.
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with serve_scripted() as served:
        yield served


@pytest.fixture(params=["sync", "async"])
async def ask(request: pytest.FixtureRequest, gateway: ScriptedGateway) -> AsyncIterator[Ask]:
    options: dict[str, Any] = {"token": "t0ken", "retry": QUICK}
    if request.param == "async":
        async with AsyncClient(gateway.address, **options) as client:

            async def call(method: str, *args: Any, **named: Any) -> Any:
                return await getattr(client, method)(*args, **named)

            yield call
        return
    with Client(gateway.address, **options) as sync:

        async def call_in_thread(method: str, *args: Any, **named: Any) -> Any:
            return await asyncio.to_thread(getattr(sync, method), *args, **named)

        yield call_in_thread


async def test_a_question_is_sent_and_its_answer_is_read(gateway: ScriptedGateway, ask: Ask) -> None:
    versions = types_pb2.Versions(release="r", generator="g")
    gateway.replies["Ask"] = pb.AskResponse(
        query_id="q", text="Paris", route=pb.ROUTE_LOCAL, versions=versions, attempt=pb.Attempt(text="P", quality=0.5)
    )
    answer = await ask("ask", "Capital?", local_only=True, alpha=0.01, timeout=30)
    assert (answer.text, answer.route, answer.versions.generator, answer.attempt.quality) == (
        "Paris",
        "local",
        "g",
        0.5,
    )
    ((_, request),) = gateway.asked
    assert isinstance(request, pb.AskRequest)
    assert (request.messages[0].content, request.local_only, request.alpha) == ("Capital?", True, 0.01)
    assert gateway.metadata[0]["authorization"] == "Bearer t0ken"
    assert 20 < gateway.seconds_left[0] <= 31


async def test_every_call_reaches_its_method_with_a_deadline(gateway: ScriptedGateway, ask: Ask) -> None:
    gateway.replies["ListReleases"] = pb.ListReleasesResponse(releases=[pb.ReleaseInfo(id="b"), pb.ReleaseInfo(id="a")])
    gateway.replies["PinRelease"] = pb.PinReleaseResponse(release=pb.ReleaseInfo(id="b", pinned=True))
    await ask("query_local_model", "x", max_tokens=5)
    await ask("compare_responses", "x", teacher_response="y")
    await ask("generate_training_data", "poems", 10, focus="short")
    await ask("analyze_model", test_count=50, categories=["poems"], example_budget=90)
    await ask("train", wait=True)
    await ask("get_job", "j", wait_seconds=99)
    await ask("send_feedback", "q", -1, correction="z")
    await ask("submit_examples", [Example(query="a", response="b", category="c")])
    assert [one.id for one in await ask("list_releases")] == ["b", "a"]
    await ask("promote_release", "b", force=True)
    await ask("rollback_release")
    assert (await ask("pin_release", "b")).pinned
    gateway.replies["UnparkExamples"] = pb.GatewayServiceUnparkExamplesResponse(examples=3, categories=["poems"])
    assert (await ask("unpark_examples", "poems")).categories == ("poems",)
    gateway.replies["TakeCheckpoint"] = pb.TakeCheckpointResponse(id="c", release="b")
    taken = await ask("take_checkpoint")
    assert (taken.id, taken.release) == ("c", "b")
    assert (await ask("get_status")).money is None
    asked = dict(gateway.asked)
    assert len(asked) == len(gateway.asked) == 15
    assert asked["CompareResponses"].teacher_response == "y"  # type: ignore[attr-defined]
    assert asked["AnalyzeModel"].example_budget == 90  # type: ignore[attr-defined]
    assert asked["GetJob"].wait_seconds == 25  # type: ignore[attr-defined]
    assert asked["UnparkExamples"].category == "poems"  # type: ignore[attr-defined]
    assert asked["PromoteRelease"].force and asked["PinRelease"].pinned  # type: ignore[attr-defined]
    for (method, _), left in zip(gateway.asked, gateway.seconds_left, strict=True):
        assert (300 < left <= 331) if method in ("PromoteRelease", "RollbackRelease") else (0 < left <= 121)


async def test_an_error_has_its_name_its_message_and_its_hint(gateway: ScriptedGateway, ask: Ask) -> None:
    gateway.failures = [theirs.TooLongError("5 of 3"), theirs.BudgetError("spent", retry_after_seconds=60)]
    with pytest.raises(errors.TooLongError, match="5 of 3"):
        await ask("ask", "x")
    with pytest.raises(errors.BudgetError) as caught:
        await ask("get_status")
    assert caught.value.retry_after_seconds == 60
    assert len(gateway.asked) == 2


async def test_a_call_without_effect_is_repeated_while_the_gateway_is_away(gateway: ScriptedGateway, ask: Ask) -> None:
    gateway.failures = [theirs.UnavailableError("away"), grpc.StatusCode.UNAVAILABLE]
    await ask("get_status")
    assert len(gateway.asked) == 3
    gateway.failures = [grpc.StatusCode.UNAVAILABLE] * 3
    with pytest.raises(errors.UnavailableError):
        await ask("get_status")
    assert (len(gateway.asked), gateway.failures) == (6, [])


@pytest.mark.parametrize(
    "failure", [theirs.UnavailableError("away"), theirs.TeacherError("no"), theirs.BudgetError("0")]
)
async def test_a_question_is_not_asked_twice(gateway: ScriptedGateway, ask: Ask, failure: theirs.ShammahError) -> None:
    gateway.failures = [failure]
    with pytest.raises(errors.ShammahError) as caught:
        await ask("ask", "x")
    assert (caught.value.code, len(gateway.asked)) == (failure.code, 1)


async def test_a_full_queue_that_says_when_is_asked_again(gateway: ScriptedGateway, ask: Ask) -> None:
    gateway.failures = [theirs.OverloadedError("full", retry_after_seconds=0.01)]
    await ask("ask", "x")
    assert len(gateway.asked) == 2
    gateway.failures = [theirs.OverloadedError("full", retry_after_seconds=60)]
    with pytest.raises(errors.OverloadedError):
        await ask("ask", "x", timeout=5)
    assert len(gateway.asked) == 3


async def test_a_gateway_that_hangs_is_a_named_error(gateway: ScriptedGateway, ask: Ask) -> None:
    gateway.failures = ["hang"]
    with pytest.raises(errors.DeadlineError):
        await ask("ask", "x", timeout=0.2)


async def test_a_job_is_waited_for(gateway: ScriptedGateway, ask: Ask) -> None:
    running = types_pb2.Job(id="j", state=types_pb2.JOB_STATE_RUNNING, stage="rollouts")
    gateway.replies["GetJob"] = pb.GetJobResponse(job=running)
    with pytest.raises(errors.DeadlineError, match="rollouts"):
        await ask("wait_for_job", "j", timeout=0.1)
    done = types_pb2.Job(id="j", state=types_pb2.JOB_STATE_DONE, result_json='{"queued": 3}')
    gateway.replies["GetJob"] = pb.GetJobResponse(job=done)
    job = await ask("wait_for_job", "j")
    assert (job.state, job.ended, job.result) == ("done", True, {"queued": 3})


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_nobody_there_is_a_named_error() -> None:
    address = f"127.0.0.1:{closed_port()}"
    with Client(address, token="t", retry=QUICK) as client, pytest.raises(errors.UnavailableError):
        client.get_status(timeout=5)
    async with AsyncClient(address, token="t", retry=QUICK) as other:
        with pytest.raises(errors.UnavailableError):
            await other.ask("x", timeout=5)


async def test_one_client_serves_many_threads(gateway: ScriptedGateway) -> None:
    gateway.replies["Ask"] = pb.AskResponse(text="yes")
    told: list[str] = []
    with Client(gateway.address, token="t") as client:
        threads = [threading.Thread(target=lambda: told.append(client.ask("x").text)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0.01)
    assert told == ["yes"] * 8


async def test_the_deadline_of_the_client_is_that_of_its_calls(gateway: ScriptedGateway) -> None:
    async with AsyncClient(gateway.address, token="t", timeout=7) as client:
        await client.ask("x")
    assert 6 < gateway.seconds_left[0] <= 7.5
