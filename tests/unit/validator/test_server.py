from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import aio
from shammah.v1 import types_pb2, validator_pb2, validator_pb2_grpc
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.manifest import read_manifest
from shammah_chassis.releases import Release
from shammah_validator.config import ValidatorSettings
from shammah_validator.engine import ValidateItem, ValidatorEngine
from shammah_validator.server import build
from support.pods import make_validator_version
from support.services import Running, connect, make_settings, publish, remember_wanted, serve, until_async

STATISTICS = types_pb2.GenerationStatistics(
    sum_logprob=-3.0,
    mean_logprob=-0.5,
    min_logprob=-1.5,
    first_logprob=-0.2,
    length=6,
    entropy_mean=0.7,
    entropy_max=2.0,
    margin_min=0.1,
    margin_mean=1.2,
    prompt_tokens=20,
)
QUERY = "What is the capital of France?"


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validator") / "version"
    make_validator_version(folder)
    return folder


@pytest.fixture
async def release(tmp_path: Path, version: Path) -> Release:
    return await publish(DirectoryStore(tmp_path / "store"), version, read_manifest(version))


@pytest.fixture
async def running(tmp_path: Path, release: Release) -> AsyncIterator[Running]:
    settings, tokens = make_settings(ValidatorSettings, tmp_path)
    remember_wanted(settings, "validator", release.id)
    async with serve(settings, tokens, lambda: build(settings)) as started:

        async def ready() -> bool:
            return (await started.get("/readyz"))[0] == 200

        await until_async(ready)
        yield started


async def validate(running: Running, **request: object) -> validator_pb2.ValidateResponse:
    async with connect(running) as opened:
        message = validator_pb2.ValidateRequest(**request)
        return await validator_pb2_grpc.ValidatorServiceStub(opened).Validate(message)


async def compare(running: Running, **request: object) -> validator_pb2.CompareResponse:
    async with connect(running) as opened:
        message = validator_pb2.CompareRequest(**request)
        return await validator_pb2_grpc.ValidatorServiceStub(opened).Compare(message)


async def test_the_answer_is_what_the_engine_says_with_release_and_version(
    running: Running, release: Release, version: Path
) -> None:
    engine = ValidatorEngine(version, read_manifest(version))
    values = [-3.0, -0.5, -1.5, -0.2, 6.0, 0.7, 2.0, 0.1, 1.2, 20.0]
    (expected,) = engine.validate([ValidateItem(QUERY, "Paris", "", values)])
    engine.close()
    answer = await validate(running, release=release.id, query=QUERY, response="Paris", statistics=STATISTICS)
    assert (answer.quality, answer.uncertainty) == (expected.quality, expected.uncertainty)
    assert answer.scores.on_topic == expected.on_topic
    assert answer.scores.coherence == expected.coherence
    assert answer.scores.hallucination == expected.hallucination
    levels = [validator_pb2.RISK_LEVEL_LOW, validator_pb2.RISK_LEVEL_MEDIUM, validator_pb2.RISK_LEVEL_HIGH]
    assert answer.scores.hallucination_risk == levels[min(2, int(expected.hallucination * 3))]
    assert (answer.release, answer.version) == (release.id, release.validator)


async def test_statistics_that_are_not_numbers_are_invalid(running: Running, release: Release) -> None:
    broken = types_pb2.GenerationStatistics(sum_logprob=float("nan"))
    with pytest.raises(aio.AioRpcError) as caught:
        await validate(running, release=release.id, query=QUERY, response="Paris", statistics=broken)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_empty_query_is_invalid_for_both_calls(running: Running, release: Release) -> None:
    for call in (validate, compare):
        with pytest.raises(aio.AioRpcError) as caught:
            await call(running, release=release.id, query=" ")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_release_is_not_found_for_both_calls(running: Running) -> None:
    for call in (validate, compare):
        with pytest.raises(aio.AioRpcError) as caught:
            await call(running, release="other", query=QUERY)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_same_text_twice_is_fully_alike(running: Running, release: Release) -> None:
    text = "The capital of France is Paris."
    answer = await compare(running, release=release.id, query=QUERY, response_a=text, response_b=text)
    assert answer.quality_a == pytest.approx(answer.quality_b, abs=1e-5)
    assert answer.cosine == pytest.approx(1.0, abs=1e-5)
    assert answer.similarity == answer.cosine
    assert answer.same_facts
    assert (answer.release, answer.version) == (release.id, release.validator)


async def test_another_number_halves_the_similarity(running: Running, release: Release) -> None:
    answer = await compare(
        running,
        release=release.id,
        query="How many?",
        response_a="There are 4 dogs in the house.",
        response_b="There are 5 dogs in the house.",
    )
    assert answer.cosine > 0.5
    assert not answer.same_facts
    assert answer.similarity == pytest.approx(answer.cosine / 2)


async def test_an_empty_response_is_like_nothing(running: Running, release: Release) -> None:
    answer = await compare(running, release=release.id, query=QUERY, response_a="Paris", response_b="")
    assert (answer.cosine, answer.similarity, answer.same_facts, answer.quality_b) == (0.0, 0.0, False, 0.0)
