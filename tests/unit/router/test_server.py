import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc import aio
from shammah.v1 import models_pb2, models_pb2_grpc, router_pb2, router_pb2_grpc
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import OverloadedError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import Leased
from shammah_chassis.interceptors import to_error
from shammah_chassis.manifest import read_manifest
from shammah_chassis.releases import Release
from shammah_router.config import RouterSettings
from shammah_router.engine import RouterEngine
from shammah_router.server import SHORT_QUERY, RouterServicer, build
from support.pods import make_router_version
from support.services import Running, connect, make_settings, publish, remember_wanted, serve, until_async


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("router") / "version"
    make_router_version(folder)
    return folder


@pytest.fixture
async def release(tmp_path: Path, version: Path) -> Release:
    return await publish(DirectoryStore(tmp_path / "store"), version, read_manifest(version))


@pytest.fixture
async def running(tmp_path: Path, release: Release) -> AsyncIterator[Running]:
    settings, tokens = make_settings(RouterSettings, tmp_path)
    remember_wanted(settings, "router", release.id)
    async with serve(settings, tokens, lambda: build(settings)) as started:
        await until_async(lambda: is_ready(started))
        yield started


async def is_ready(running: Running) -> bool:
    return (await running.get("/readyz"))[0] == 200


async def route(running: Running, **request: str) -> router_pb2.RouteResponse:
    async with connect(running) as opened:
        return await router_pb2_grpc.RouterServiceStub(opened).Route(router_pb2.RouteRequest(**request))


async def test_a_query_is_routed_and_the_answer_names_release_and_version(running: Running, release: Release) -> None:
    answer = await route(running, release=release.id, query="What is the capital of France?")
    assert (answer.release, answer.version) == (release.id, release.router)
    # Release 0 has learned nothing: it forwards everything.
    assert (answer.local_probability, answer.category, answer.truncated) == (0.0, "", False)


async def test_a_long_query_is_cut_and_says_so(running: Running, release: Release) -> None:
    assert (await route(running, release=release.id, query="fox " * 1000)).truncated


@pytest.mark.parametrize("query", ["", "  \n"])
async def test_an_empty_query_is_invalid(running: Running, release: Release, query: str) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await route(running, release=release.id, query=query)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["", "01ARZ3NDEKTSV4RRFFQ69G5FAV"])
async def test_a_release_that_is_not_held_is_not_found(running: Running, release: Release, name: str) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await route(running, release=name, query="hello")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert to_error(caught.value).code == "unknown_release"
    assert release.id in str(caught.value.details())


async def test_the_pod_serves_what_it_remembers_while_the_bus_is_away_and_says_so(
    running: Running, release: Release
) -> None:
    async with connect(running) as opened:
        answer = await models_pb2_grpc.ModelServiceStub(opened).ListVersions(models_pb2.ListVersionsRequest())
    (held,) = answer.versions
    assert (answer.role, held.release, held.state) == ("router", release.id, models_pb2.HOLD_STATE_READY)
    assert held.resident_bytes > 0
    _, metrics = await running.get("/metrics")
    assert 'shammah_bus_connected{service="test"} 0.0' in metrics
    assert 'shammah_held_versions{service="test"} 1.0' in metrics


async def test_a_pod_that_wants_nothing_yet_is_alive_but_not_ready(tmp_path: Path) -> None:
    settings, tokens = make_settings(RouterSettings, tmp_path)
    async with serve(settings, tokens, lambda: build(settings)) as running:
        assert (await running.get("/livez"))[0] == 200
        assert (await running.get("/readyz"))[0] == 503


@dataclass
class OneVersion:
    """Holds one engine, whatever release is asked for."""

    engine: RouterEngine

    @contextmanager
    def lease(self, release: str) -> Iterator[Leased[RouterEngine]]:
        yield Leased(release, "v1", self.engine)


@pytest.fixture
def engine(version: Path) -> Iterator[RouterEngine]:
    made = RouterEngine(version, read_manifest(version))
    yield made
    made.close()


async def test_a_lone_short_query_needs_no_thread_and_a_long_one_does(engine: RouterEngine) -> None:
    closed = BoundedExecutor(threads=1, queue_limit=1, name="closed")
    closed.close()
    servicer = RouterServicer(OneVersion(engine), closed)
    assert (await servicer.Route(router_pb2.RouteRequest(release="r", query="x" * SHORT_QUERY), None)).release == "r"
    with pytest.raises(RuntimeError, match="shutdown"):
        await servicer.Route(router_pb2.RouteRequest(release="r", query="x" * (SHORT_QUERY + 1)), None)
    # The failed call is counted out again.
    assert (await servicer.Route(router_pb2.RouteRequest(release="r", query="a table"), None)).version == "v1"


async def test_calls_that_come_together_wait_in_the_bounded_queue(engine: RouterEngine) -> None:
    inference = BoundedExecutor(threads=1, queue_limit=1, name="inference")
    servicer = RouterServicer(OneVersion(engine), inference)
    calls = [servicer.Route(router_pb2.RouteRequest(release="r", query="a table"), None) for _ in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, router_pb2.RouteResponse) for outcome in outcomes) == 2
    assert sum(isinstance(outcome, OverloadedError) for outcome in outcomes) == 3
    inference.close()
