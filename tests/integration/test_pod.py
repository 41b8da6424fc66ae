"""A serving pod over the object store of a real event bus."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import SettingsConfigDict
from shammah.v1 import router_pb2, router_pb2_grpc
from shammah_chassis.artifacts import open_store
from shammah_chassis.bus import Bus
from shammah_chassis.held import HeldVersions, Loader
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.pod import Pod
from shammah_chassis.releases import Release, Wanted
from shammah_chassis.serving import ServiceParts
from shammah_chassis.settings import ServiceSettings
from support.artifacts import make_release, make_version
from support.nats import RestartableNats
from support.services import Running, connect, make_settings, serve, until_async


class PodSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SOME_")


@dataclass(eq=False)
class Content:
    """What these tests load: the bytes of a version."""

    text: str
    open: bool = True


CLOSED: list[str] = []


class Servicer(router_pb2_grpc.RouterServiceServicer):
    """Answers by the content of the version."""

    def __init__(self, held: HeldVersions[Content]) -> None:
        self._held = held

    async def Route(self, request: router_pb2.RouteRequest, context: Any) -> router_pb2.RouteResponse:
        with self._held.lease(request.release) as leased:
            return router_pb2.RouteResponse(category=leased.value.text, version=leased.version)


def make_pod(settings: PodSettings) -> Pod[Content]:
    loader = Loader(
        load=lambda folder, *_: Content((folder / "model.safetensors").read_text()),
        close=lambda content: CLOSED.append(content.text),
    )
    return Pod(settings, role="router", loader=loader)


async def build(settings: PodSettings) -> ServiceParts:
    add = router_pb2_grpc.add_RouterServiceServicer_to_server
    return await make_pod(settings).build(lambda pod: (add, Servicer(pod.held), "shammah.v1.RouterService"))


async def publish_in(bus: Bus, folder: Path, content: bytes) -> Release:
    store = open_store("nats:", bus)
    manifest = make_version(folder, content=content)
    release = make_release(router=manifest.version)
    await store.publish_version(folder, manifest)
    await store.publish_release(release)
    return release


async def is_ready(running: Running) -> bool:
    return (await running.get("/readyz"))[0] == 200


async def route(running: Running, release: Release) -> str:
    async with connect(running) as opened:
        request = router_pb2.RouteRequest(release=release.id)
        return (await router_pb2_grpc.RouterServiceStub(opened).Route(request)).category


@pytest.fixture
async def running(tmp_path: Path, nats_server: NatsServer, bus: Bus) -> AsyncIterator[Running]:
    settings, tokens = make_settings(PodSettings, tmp_path, store_url="nats:", nats_url=nats_server.url)
    async with serve(settings, tokens, lambda: build(settings)) as started:
        yield started


async def test_a_pod_holds_what_is_wanted_fetches_it_and_lets_it_go(running: Running, bus: Bus, tmp_path: Path) -> None:
    CLOSED.clear()
    old = await publish_in(bus, tmp_path / "old", b"old")
    assert not await is_ready(running)
    revision = await bus.kv_create("wanted", Wanted((old.id,)).to_json())
    await until_async(lambda: is_ready(running))
    assert await route(running, old) == "old"
    new = await publish_in(bus, tmp_path / "new", b"new")
    await bus.kv_update("wanted", Wanted((new.id,)).to_json(), revision)

    async def swapped() -> bool:
        return CLOSED == ["old"] and await is_ready(running)

    await until_async(swapped)
    assert await route(running, new) == "new"


async def test_a_pod_that_starts_before_the_bus_has_a_bucket_waits_calmly(
    tmp_path: Path, own_nats: RestartableNats
) -> None:
    settings, tokens = make_settings(PodSettings, tmp_path, nats_url=own_nats.url)
    bus = await Bus.connect(own_nats.url)
    async with serve(settings, tokens, lambda: build(settings)) as running:
        assert not await is_ready(running)
        await bus.ensure()
        release = make_release(router="none")
        await bus.kv_create("wanted", Wanted((release.id,)).to_json())

        async def failed() -> bool:
            return 'shammah_failed_versions{service="test"} 1.0' in (await running.get("/metrics"))[1]

        await until_async(failed)
    await bus.close()
