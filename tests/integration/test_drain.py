"""A generator as its own process with a real event bus: start, swap, SIGTERM in the middle of a stream."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio
from shammah.v1 import generator_pb2, generator_pb2_grpc, models_pb2, models_pb2_grpc, types_pb2
from shammah_chassis.bus import Bus
from shammah_chassis.channels import channel
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.releases import Release, Wanted
from shammah_chassis.token_book import write_tokens
from support.nats import RestartableNats
from support.pods import publish_generator
from support.services import until

LONG = 1200


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generators")


@pytest.fixture(scope="module")
def releases(root: Path) -> tuple[Release, Release]:
    async def make() -> tuple[Release, Release]:
        return await publish_generator(root, endless=True), await publish_generator(root, seed=1, endless=True)

    return asyncio.run(make())


class Process:
    """A started generator."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, token: str) -> None:
        self.process = process
        self.channel = channel(f"127.0.0.1:{port}", token)
        self.generator = generator_pb2_grpc.GeneratorServiceStub(self.channel)
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)

    async def wait_ready(self, release: Release) -> None:
        async with asyncio.timeout(20):
            async for answer in self.models.WatchVersions(models_pb2.WatchVersionsRequest()):
                if (release.id, models_pb2.HOLD_STATE_READY) in [
                    (held.release, held.state) for held in answer.versions
                ]:
                    return


@asynccontextmanager
async def start(folder: Path, root: Path, nats_url: str) -> AsyncIterator[Process]:
    """Start `python -m shammah_generator` by its environment; kill it at the end if it still runs."""
    token = write_tokens(folder / "tokens.json")["internal"]
    ready_file = folder / "ready.json"
    settings = {
        "DATA_DIR": folder,
        "NATS_URL": nats_url,
        "TOKENS_FILE": folder / "tokens.json",
        "READY_FILE": ready_file,
        "STORE_URL": f"dir:{root}/store",
        "PRECISION": "fp32",
        "THREADS": 1,
        "SLOTS": 4,
        "CONTEXT": 2000,
        "DRAIN_SECONDS": 20,
    }
    environment = {f"SHAMMAH_GENERATOR_{name}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shammah_generator", env={**os.environ, **environment}
    )
    try:
        await until(lambda: ready_file.exists() or process.returncode is not None)
        started = Process(process, json.loads(ready_file.read_text())["port"], token)
        yield started
        await started.channel.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def ask(release: Release, max_tokens: int = LONG) -> generator_pb2.GenerateRequest:
    return generator_pb2.GenerateRequest(
        release=release.id,
        messages=[types_pb2.Message(role="user", content="Hi")],
        sampling=generator_pb2.Sampling(max_tokens=max_tokens),
    )


async def want(bus: Bus, *releases: Release) -> None:
    entry = await bus.kv_get("wanted")
    text = Wanted(tuple(release.id for release in releases)).to_json()
    await (bus.kv_update("wanted", text, entry.revision) if entry else bus.kv_create("wanted", text))


async def test_a_drain_lets_a_running_stream_end_and_refuses_new_calls(
    tmp_path: Path, root: Path, releases: tuple[Release, Release], bus: Bus, nats_server: NatsServer
) -> None:
    await want(bus, releases[0])
    async with start(tmp_path / "pod", root, nats_server.url) as pod:
        await pod.wait_ready(releases[0])
        call = pod.generator.Generate(ask(releases[0]))
        tokens = len((await call.read()).token_ids)
        pod.process.terminate()

        async def is_refused() -> bool:
            try:
                await pod.generator.Generate(ask(releases[0], 1)).read()
            except aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        refused = False
        async for message in call:
            tokens += len(message.token_ids)
            last = message
            refused = refused or await is_refused()
        assert tokens == LONG
        assert last.finish_reason == generator_pb2.FINISH_REASON_LENGTH
        assert refused
        async with asyncio.timeout(10):
            assert await pod.process.wait() == 0
    assert not (tmp_path / "pod" / "ready.json").exists()


async def test_a_swap_during_a_stream_changes_neither_its_author_nor_its_text(
    tmp_path: Path, root: Path, releases: tuple[Release, Release], bus: Bus, nats_server: NatsServer
) -> None:
    old, new = releases
    await want(bus, old)
    async with start(tmp_path / "pod", root, nats_server.url) as pod:
        await pod.wait_ready(old)
        alone = "".join([message.text async for message in pod.generator.Generate(ask(old))])
        call = pod.generator.Generate(ask(old))
        messages = [await call.read()]
        await want(bus, new)
        await pod.wait_ready(new)
        messages += [message async for message in call]
        assert "".join(message.text for message in messages) == alone
        assert {message.version for message in messages} == {old.generator}
        assert [message.version async for message in pod.generator.Generate(ask(new, 1))] == [new.generator]


async def test_a_pod_serves_on_without_the_bus_and_follows_it_again_later(
    tmp_path: Path, root: Path, releases: tuple[Release, Release], own_nats: RestartableNats
) -> None:
    old, new = releases
    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    await want(bus, old)
    async with start(tmp_path / "pod", root, own_nats.url) as pod:
        await pod.wait_ready(old)
        own_nats.kill()
        assert [message.version async for message in pod.generator.Generate(ask(old, 1))] == [old.generator]
        own_nats.start()
        await want(bus, old, new)
        await pod.wait_ready(new)
    await bus.close()
