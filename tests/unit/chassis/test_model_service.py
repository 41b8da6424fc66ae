import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict
from shammah.v1 import models_pb2, models_pb2_grpc
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, Loader
from shammah_chassis.model_service import ModelServicer
from shammah_chassis.releases import Wanted
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.ulid import new_ulid
from support.artifacts import make_version
from support.services import Running, connect, make_settings, parts_of, publish, serve, until


class SomeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SOME_")


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[HeldVersions[bytes]]:
    executor = BoundedExecutor(threads=1, queue_limit=9, name="loader")
    made = HeldVersions(
        "router",
        store=DirectoryStore(tmp_path / "store"),
        loader=Loader(load=lambda *_: b"12345", close=lambda _: None, measure=len),
        cache_dir=tmp_path,
        executor=executor,
    )
    yield made
    await made.close()
    executor.close()


@pytest.fixture
async def running(tmp_path: Path, held: HeldVersions[bytes]) -> AsyncIterator[Running]:
    settings, tokens = make_settings(SomeSettings, tmp_path)

    async def end_watches() -> None:
        held.end_watches()

    add = models_pb2_grpc.add_ModelServiceServicer_to_server
    async with serve(settings, tokens, parts_of((add, ModelServicer(held)), before_stop=[end_watches])) as started:
        yield started


async def test_the_list_tells_state_error_leases_and_size(
    tmp_path: Path, held: HeldVersions[bytes], running: Running
) -> None:
    release = await publish(DirectoryStore(tmp_path / "store"), tmp_path / "v", make_version(tmp_path / "v"))
    missing = new_ulid()
    await held.reconcile(Wanted((release.id, missing)))
    async with connect(running) as opened:
        with held.lease(release.id):
            answer = await models_pb2_grpc.ModelServiceStub(opened).ListVersions(models_pb2.ListVersionsRequest())
    assert answer.role == "router"
    ready, failed = answer.versions
    assert ready == models_pb2.HeldVersion(
        release=release.id,
        version=release.router,
        state=models_pb2.HOLD_STATE_READY,
        leases=1,
        resident_bytes=5,
    )
    assert (failed.release, failed.state, failed.error_code) == (
        missing,
        models_pb2.HOLD_STATE_FAILED,
        "unknown_release",
    )
    assert missing in failed.error_message


async def test_a_watch_tells_now_and_at_each_change_and_ends_when_the_pod_stops(
    tmp_path: Path, held: HeldVersions[bytes], running: Running
) -> None:
    release = await publish(DirectoryStore(tmp_path / "store"), tmp_path / "v", make_version(tmp_path / "v"))
    seen: list[list[int]] = []

    async with connect(running) as opened:

        async def watch() -> None:
            call = models_pb2_grpc.ModelServiceStub(opened).WatchVersions(models_pb2.WatchVersionsRequest())
            async for answer in call:
                seen.append([version.state for version in answer.versions])

        watcher = asyncio.create_task(watch())
        await until(lambda: seen == [[]])
        await held.reconcile(Wanted((release.id,)))
        await until(lambda: seen[-1] == [models_pb2.HOLD_STATE_READY])
        async with asyncio.timeout(4):
            await running.service.stop()
            await watcher
    assert seen[0] == []
    assert seen[-1] == [models_pb2.HOLD_STATE_READY]
