"""Examples on their way: the bus hangs, the disk fails, the caller gives up, and none is lost or waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.spool import Spool
from shammah_gateway import recorder as module
from shammah_gateway.ports import Recorded
from shammah_gateway.recorder import Recorder
from support.example_values import make_example
from support.nats import RestartableNats
from support.services import until

PATIENT = 60.0


@pytest.fixture
async def own_bus(own_nats: RestartableNats, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    """A connection to a server that may be stopped."""
    monkeypatch.setattr(module, "PUBLISH_SECONDS", PATIENT)
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.01)
    connection = await Bus.connect(own_nats.url)
    await connection.ensure()
    yield connection
    await connection.close()


@pytest.fixture
async def recorder(own_bus: Bus, tmp_path: Path) -> AsyncIterator[Recorder]:
    """It sends nothing of what waits before its `start`."""
    made = Recorder(own_bus, Spool(tmp_path / "spool", 1 << 20))
    yield made
    await made.close()


@contextmanager
def hanging(server: RestartableNats, *, patience: float = 0.1) -> Iterator[None]:
    """Connections to the server stand and nothing is answered; only meanwhile is nobody patient."""
    os.kill(server.server.pid, signal.SIGSTOP)
    # A signal is on its way when `kill` returns: until all threads have stopped the server may still answer.
    os.waitid(os.P_PID, server.server.pid, os.WSTOPPED | os.WNOWAIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PUBLISH_SECONDS", patience)
        try:
            yield
        finally:
            os.kill(server.server.pid, signal.SIGCONT)


async def record(recorder: Recorder, name: str) -> Recorded:
    return await recorder.record("teacher", [make_example(f"question {name}", "answer")])


def sent_by(bus: Bus) -> int:
    return int(bus.client.stats["out_msgs"])


async def test_once_the_bus_hangs_only_the_sending_of_what_waits_asks_it(
    own_nats: RestartableNats, own_bus: Bus, recorder: Recorder
) -> None:
    with hanging(own_nats):
        assert (await record(recorder, "first")).spooled
        sent = sent_by(own_bus)
        for index in range(20):
            assert (await record(recorder, str(index))).spooled
        assert sent_by(own_bus) == sent
    recorder.start()
    await until(lambda: not recorder.spooled and not recorder.warning)
    assert not (await record(recorder, "last")).spooled
    assert (await own_bus.log_state()).messages == 22


async def test_where_nothing_waits_the_next_one_asks_a_bus_that_hung(
    own_nats: RestartableNats, own_bus: Bus, recorder: Recorder
) -> None:
    example = make_example("a secret of mine", request="01A")
    with hanging(own_nats):
        assert (await recorder.record("teacher", [example])).spooled
        assert await recorder.forget("01A") == 1
    assert not (await record(recorder, "next")).spooled


async def test_an_example_whose_caller_gives_up_on_a_bus_that_hangs_is_spooled(
    own_nats: RestartableNats, own_bus: Bus, recorder: Recorder
) -> None:
    with hanging(own_nats, patience=PATIENT):
        sent = sent_by(own_bus)
        caller = asyncio.create_task(record(recorder, "given up"))
        await until(lambda: sent_by(own_bus) > sent)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert recorder.spooled == 1


async def test_a_caller_who_gives_up_where_there_is_no_room_is_only_cancelled(
    own_nats: RestartableNats, own_bus: Bus, tmp_path: Path
) -> None:
    recorder = Recorder(own_bus, Spool(tmp_path / "small", 1))
    with hanging(own_nats, patience=PATIENT):
        sent = sent_by(own_bus)
        caller = asyncio.create_task(record(recorder, "given up"))
        await until(lambda: sent_by(own_bus) > sent)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller


async def test_a_record_that_can_not_be_read_ends_no_sending_and_keeps_nobody_from_the_bus(
    own_nats: RestartableNats, own_bus: Bus, recorder: Recorder, tmp_path: Path
) -> None:
    with hanging(own_nats):
        assert (await record(recorder, "first")).spooled
    (path,) = (tmp_path / "spool").glob("*.envelope")
    aside = path.rename(tmp_path / "aside")
    # Read as a file it is an error, whoever reads it.
    path.mkdir()
    recorder.start()
    await until(lambda: "directory" in recorder.warning)
    assert not (await record(recorder, "second")).spooled
    path.rmdir()
    aside.rename(path)
    await until(lambda: not recorder.spooled and not recorder.warning)
    assert (await own_bus.log_state()).messages == 2
