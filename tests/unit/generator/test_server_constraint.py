"""Constrained output, versions that can't be served, and kept beginnings, through a pod of the generator."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from grpc import aio
from shammah.v1 import generator_pb2, generator_pb2_grpc, models_pb2, models_pb2_grpc, types_pb2
from shammah_chassis.interceptors import to_error
from shammah_chassis.releases import Release
from shammah_generator.config import GeneratorSettings
from shammah_generator.server import build
from support.pods import publish_generator
from support.services import Running, connect, make_settings, remember_wanted, serve, until_async

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Köln", "東京"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["city", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generators")


@pytest.fixture(scope="module")
def releases(root: Path) -> dict[str, Release]:
    async def make() -> dict[str, Release]:
        made = {name: await publish_generator(root, seed=seed) for seed, name in enumerate(("sound", "spoiled"))}
        weights = root / "store" / "generator" / made["spoiled"].generator / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.chmod(0o644)
        weights.write_bytes(content)
        return made

    return asyncio.run(make())


@pytest.fixture
async def start(tmp_path: Path, root: Path, releases: dict[str, Release]) -> AsyncIterator[Callable[..., Any]]:
    """Return a starter of a generator pod that holds the named releases, or has tried to."""
    async with AsyncExitStack() as stack:

        async def run(*names: str, **changes: object) -> Running:
            values = {"precision": "fp32", "threads": 1, "slots": 4, "context": 200, "store_url": f"dir:{root}/store"}
            settings, tokens = make_settings(GeneratorSettings, tmp_path, **(values | changes))
            remember_wanted(settings, "generator", *(releases[name].id for name in names))
            running = await stack.enter_async_context(serve(settings, tokens, lambda: build(settings)))

            async def settled() -> bool:
                held = await list_held(running)
                done = {models_pb2.HOLD_STATE_READY, models_pb2.HOLD_STATE_FAILED}
                return len(held) == len(names) and all(one.state in done for one in held.values())

            await until_async(settled)
            return running

        yield run


async def list_held(running: Running) -> dict[str, models_pb2.HeldVersion]:
    async with connect(running) as opened:
        answer = await models_pb2_grpc.ModelServiceStub(opened).ListVersions(models_pb2.ListVersionsRequest())
    return {held.release: held for held in answer.versions}


def say(text: str) -> list[types_pb2.Message]:
    return [types_pb2.Message(role="user", content=text)]


async def generate(
    running: Running, release: Release, text: str = "Hi", **sampling: Any
) -> list[generator_pb2.GenerateResponse]:
    request = generator_pb2.GenerateRequest(
        release=release.id, messages=say(text), sampling=generator_pb2.Sampling(**sampling)
    )
    async with connect(running) as opened:
        return [message async for message in generator_pb2_grpc.GeneratorServiceStub(opened).Generate(request)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_response_is_held_to_a_schema_and_tells_how_far_it_was_forced(
    start: Callable[..., Any], releases: dict[str, Release], temperature: float
) -> None:
    running = await start("sound")
    messages = await generate(
        running, releases["sound"], json_schema=json.dumps(SCHEMA), temperature=temperature, seed=3, max_tokens=120
    )
    jsonschema.validate(json.loads("".join(message.text for message in messages)), SCHEMA)
    *before, last = messages
    assert last.finish_reason == generator_pb2.FINISH_REASON_STOP
    assert not any(message.HasField("constraint") for message in before)
    assert last.constraint.forced_tokens > 0
    assert last.statistics.sum_logprob <= last.constraint.allowed_sum_logprob < 0
    assert last.statistics.sum_logprob < last.constraint.unconstrained_sum_logprob


async def test_a_batch_mixes_labels_and_free_responses(start: Callable[..., Any], releases: dict[str, Release]) -> None:
    running = await start("sound")
    free = await generate(running, releases["sound"], "book a table", max_tokens=10)
    labels = generator_pb2.Sampling(labels=["book", "cancel", "ask 東京"], max_tokens=40)
    items = [
        generator_pb2.GenerateBatchItem(messages=say("book a table"), sampling=generator_pb2.Sampling(max_tokens=10)),
        *(generator_pb2.GenerateBatchItem(messages=say(f"number {number}"), sampling=labels) for number in range(6)),
    ]
    request = generator_pb2.GenerateBatchRequest(release=releases["sound"].id, items=items)
    async with connect(running) as opened:
        call = generator_pb2_grpc.GeneratorServiceStub(opened).GenerateBatch(request)
        answers = {answer.index: answer async for answer in call}
    assert sorted(answers) == list(range(7))
    assert answers[0].text == "".join(message.text for message in free)
    assert not answers[0].HasField("constraint")
    for index in range(1, 7):
        assert answers[index].text in labels.labels
        assert answers[index].HasField("constraint")


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        ({"json_schema": '{"type": "strin"}'}, "can't be compiled"),
        ({"json_schema": "{"}, "not JSON"),
        ({"json_schema": "{}", "labels": ["a"]}, "not both"),
        ({"labels": ["a", ""]}, "at least one character"),
    ],
)
async def test_a_constraint_that_is_none_is_refused_by_name_and_the_pod_serves_on(
    start: Callable[..., Any], releases: dict[str, Release], sampling: dict[str, Any], word: str
) -> None:
    running = await start("sound")
    with pytest.raises(aio.AioRpcError) as caught:
        await generate(running, releases["sound"], **sampling)
    error = to_error(caught.value)
    assert error.code == "invalid_input"
    assert word in error.message
    assert await generate(running, releases["sound"], max_tokens=2)


async def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(
    start: Callable[..., Any], releases: dict[str, Release]
) -> None:
    running = await start("sound", context=60)
    with pytest.raises(aio.AioRpcError) as caught:
        await generate(running, releases["sound"], "x " * 100)
    error = to_error(caught.value)
    assert error.code == "too_long"
    assert "allowed: up to 59" in error.message
    length = int(error.message.split(" tokens")[0].split()[-1])
    assert 100 <= length <= 300


async def test_weights_whose_digest_differs_are_named_and_the_other_releases_serve(
    start: Callable[..., Any], releases: dict[str, Release]
) -> None:
    running = await start("spoiled", "sound")
    refused = (await list_held(running))[releases["spoiled"].id]
    assert (refused.state, refused.error_code) == (models_pb2.HOLD_STATE_FAILED, "bad_artifact")
    assert "model.safetensors" in refused.error_message
    assert await generate(running, releases["sound"], max_tokens=3)


async def test_requests_that_share_a_beginning_show_in_the_metrics(
    start: Callable[..., Any], releases: dict[str, Release]
) -> None:
    running = await start("sound")
    shared = "my card was lost, please transfer 120 euros to my savings account at seven in the evening, "
    for number in range(4):
        await generate(running, releases["sound"], f"{shared}{number}", max_tokens=2)
    _, text = await running.get("/metrics")
    values = {line.split("{")[0]: float(line.split()[-1]) for line in text.splitlines() if line.startswith("shammah")}
    assert values["shammah_generator_reused_tokens"] > 0
    assert values["shammah_generator_prefix_bytes"] > 0
