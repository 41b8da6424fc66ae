import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from shammah.v1 import generator_pb2, generator_pb2_grpc, models_pb2, models_pb2_grpc, types_pb2
from shammah_chassis.interceptors import to_error
from shammah_chassis.releases import Release
from shammah_chassis.ulid import new_ulid
from shammah_generator.config import GeneratorSettings
from shammah_generator.server import build
from support.pods import publish_generator
from support.services import Running, connect, make_settings, remember_wanted, serve, until_async

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generators")


@pytest.fixture(scope="module")
def releases(root: Path) -> dict[str, Release]:
    async def make() -> dict[str, Release]:
        return {
            "short": await publish_generator(root),
            "endless": await publish_generator(root, seed=1, endless=True),
            "int8": await publish_generator(root, precision="int8"),
        }

    return asyncio.run(make())


@pytest.fixture
async def start(tmp_path: Path, root: Path, releases: dict[str, Release]) -> AsyncIterator[Start]:
    """Return a starter of a generator pod that holds the named releases."""
    async with AsyncExitStack() as stack:

        async def run(*names: str, **changes: object) -> Running:
            values = {"precision": "fp32", "threads": 1, "slots": 2, "context": 200, "store_url": f"dir:{root}/store"}
            settings, tokens = make_settings(GeneratorSettings, tmp_path, **(values | changes))
            remember_wanted(settings, "generator", *(releases[name].id for name in names))
            running = await stack.enter_async_context(serve(settings, tokens, lambda: build(settings)))

            async def settled() -> bool:
                async with connect(running) as opened:
                    answer = await models_pb2_grpc.ModelServiceStub(opened).ListVersions(
                        models_pb2.ListVersionsRequest()
                    )
                done = {models_pb2.HOLD_STATE_READY, models_pb2.HOLD_STATE_FAILED}
                return len(answer.versions) == len(names) and all(held.state in done for held in answer.versions)

            await until_async(settled)
            return running

        yield run


def ask(release: Release | str, text: str = "Hi", **sampling: object) -> generator_pb2.GenerateRequest:
    return generator_pb2.GenerateRequest(
        release=release if isinstance(release, str) else release.id,
        messages=[types_pb2.Message(role="user", content=text)],
        sampling=generator_pb2.Sampling(**sampling),
    )


async def generate(running: Running, request: generator_pb2.GenerateRequest) -> list[generator_pb2.GenerateResponse]:
    async with connect(running) as opened:
        return [message async for message in generator_pb2_grpc.GeneratorServiceStub(opened).Generate(request)]


async def metric(running: Running, name: str) -> float:
    _, text = await running.get("/metrics")
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{{"))


async def test_a_response_is_streamed_in_several_messages_and_the_last_one_ends_it(
    start: Start, releases: dict[str, Release]
) -> None:
    release = releases["endless"]
    running = await start("endless", chunk_tokens=4)
    messages = await generate(running, ask(release, max_tokens=20))
    assert len(messages) > 1
    assert sum(len(message.token_ids) for message in messages) == 20
    assert all(len(message.token_ids) == len(message.logprobs) for message in messages)
    assert {(message.release, message.version) for message in messages} == {(release.id, release.generator)}
    *before, last = messages
    assert {message.finish_reason for message in before} == {generator_pb2.FINISH_REASON_UNSPECIFIED}
    assert last.finish_reason == generator_pb2.FINISH_REASON_LENGTH
    assert (last.statistics.length, last.statistics.prompt_tokens > 0) == (20, True)
    assert last.statistics.sum_logprob == pytest.approx(
        sum(value for message in messages for value in message.logprobs), rel=1e-4
    )


async def test_the_default_length_is_used_when_the_request_has_none(start: Start, releases: dict[str, Release]) -> None:
    running = await start("endless", default_max_tokens=7)
    *_, last = await generate(running, ask(releases["endless"]))
    assert last.statistics.length == 7


async def test_a_batch_gives_each_item_the_response_that_it_gets_alone(
    start: Start, releases: dict[str, Release]
) -> None:
    release, texts = releases["short"], ["Hi", "What is the capital of France?", "Is 4 a number?", "yes"]
    running = await start("short")
    alone = []
    for text in texts:
        messages = await generate(running, ask(release, text, max_tokens=12))
        alone.append("".join(message.text for message in messages))
    request = generator_pb2.GenerateBatchRequest(
        release=release.id,
        items=[
            generator_pb2.GenerateBatchItem(
                messages=[types_pb2.Message(role="user", content=text)],
                sampling=generator_pb2.Sampling(max_tokens=12),
            )
            for text in texts
        ],
    )
    async with connect(running) as opened:
        call = generator_pb2_grpc.GeneratorServiceStub(opened).GenerateBatch(request)
        answers = {answer.index: answer async for answer in call}
    assert [answers[index].text for index in range(4)] == alone
    assert {(answer.release, answer.version) for answer in answers.values()} == {(release.id, release.generator)}
    assert all(answer.finish_reason and answer.statistics.length for answer in answers.values())


async def test_a_client_that_leaves_frees_its_slot(start: Start, releases: dict[str, Release]) -> None:
    running = await start("endless", slots=1, context=4000)
    async with connect(running) as opened:
        call = generator_pb2_grpc.GeneratorServiceStub(opened).Generate(ask(releases["endless"], max_tokens=3900))
        async for _ in call:
            break

        async def busy() -> bool:
            slots = await metric(running, "shammah_generator_active_slots")
            return slots == await metric(running, "shammah_leases") == 1

        await until_async(busy)
        call.cancel()

        async def free() -> bool:
            slots = await metric(running, "shammah_generator_active_slots")
            return slots == await metric(running, "shammah_leases") == 0

        await until_async(free)
    # Far less than the whole response was made.
    assert await metric(running, "shammah_generator_tokens_total") < 3000


async def test_a_full_queue_is_refused_with_a_hint(start: Start, releases: dict[str, Release]) -> None:
    running = await start("endless", slots=1, queue_limit=1, context=4000)
    request = ask(releases["endless"], max_tokens=3900)
    async with connect(running) as opened:
        stub = generator_pb2_grpc.GeneratorServiceStub(opened)
        first = stub.Generate(request)
        async for _ in first:
            break
        second = stub.Generate(request)
        second_read = asyncio.ensure_future(second.read())

        async def waiting() -> bool:
            return await metric(running, "shammah_generator_queue_length") == 1

        await until_async(waiting)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.Generate(request).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        hint = to_error(caught.value).retry_after_seconds
        assert hint is not None
        assert hint > 0
        first.cancel()
        second.cancel()
        await asyncio.gather(second_read, return_exceptions=True)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (lambda release: generator_pb2.GenerateRequest(release=release.id), "invalid_input"),
        (lambda release: ask(release, temperature=9.0), "invalid_input"),
        (lambda release: ask(release, max_tokens=-1), "invalid_input"),
        (lambda release: ask(release, "fox " * 500), "too_long"),
        (lambda release: ask(release, "f" * 20_000), "too_long"),
        (lambda _: ask(new_ulid()), "unknown_release"),
    ],
)
async def test_a_request_that_can_not_be_served_is_refused_by_name(
    start: Start, releases: dict[str, Release], request_: Any, code: str
) -> None:
    running = await start("short")
    with pytest.raises(aio.AioRpcError) as caught:
        await generate(running, request_(releases["short"]))
    assert to_error(caught.value).code == code


async def test_a_batch_of_nothing_is_invalid(start: Start, releases: dict[str, Release]) -> None:
    running = await start("short")
    async with connect(running) as opened:
        call = generator_pb2_grpc.GeneratorServiceStub(opened).GenerateBatch(
            generator_pb2.GenerateBatchRequest(release=releases["short"].id)
        )
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_release_for_another_precision_is_refused_and_the_others_serve(
    start: Start, releases: dict[str, Release]
) -> None:
    running = await start("short", "int8")
    async with connect(running) as opened:
        answer = await models_pb2_grpc.ModelServiceStub(opened).ListVersions(models_pb2.ListVersionsRequest())
    refused = next(held for held in answer.versions if held.release == releases["int8"].id)
    assert (refused.state, refused.error_code) == (models_pb2.HOLD_STATE_FAILED, "bad_artifact")
    assert "int8" in refused.error_message
    assert await generate(running, ask(releases["short"], max_tokens=3))


async def test_an_int8_pod_serves_what_is_certified_for_int8(start: Start, releases: dict[str, Release]) -> None:
    running = await start("int8", precision="int8")
    *_, last = await generate(running, ask(releases["int8"], max_tokens=5))
    assert last.statistics.length > 0
    assert await metric(running, "shammah_generator_kv_bytes") > 0
