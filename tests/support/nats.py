"""Fixtures with the real nats-server: one per test module, wiped before each test, and one of its own for faults."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats.js.errors
import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.streams import ARTIFACTS, BUCKET, DEAD, EXAMPLES


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server for the tests of one module; do not kill it."""
    server = NatsServer.start(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection to the module's server with empty streams and buckets."""
    connection = await Bus.connect(nats_server.url)
    for name in (EXAMPLES, DEAD, f"KV_{BUCKET}", f"OBJ_{ARTIFACTS}"):
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await connection.jetstream.delete_stream(name)
    await connection.ensure()
    yield connection
    await connection.close()


class RestartableNats:
    """A server that a test may kill and start again on the same port over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = NatsServer.start(folder)
        self.url = self.server.url

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server = NatsServer.start(self.folder, port=self.server.port)


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[RestartableNats]:
    """A server for one test alone."""
    holder = RestartableNats(tmp_path / "own-nats")
    yield holder
    holder.server.kill()
