"""Examples on their way: a bus that hangs costs one user two seconds, not each of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.examples import Envelope
from shammah_chassis.spool import Spool
from shammah_gateway import recorder
from shammah_gateway.recorder import Recorder
from support.example_values import make_example


class HangingBus:
    """Connected; takes what it is given only once `free` is set."""

    connected = True

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.got: list[Envelope] = []

    async def publish_envelope(self, source: str, envelope: Envelope) -> None:
        await self.free.wait()
        self.got.append(envelope)


async def test_only_the_first_waits_for_a_bus_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PUBLISH_SECONDS", 0.2)
    monkeypatch.setattr(recorder, "DRAIN_SECONDS", 0.01)
    bus = HangingBus()
    kept = Recorder(cast(Bus, bus), Spool(tmp_path / "spool", 1 << 20))
    kept.start()
    clock = asyncio.get_running_loop().time
    waited = []
    for index in range(20):
        begun = clock()
        assert (await kept.record("teacher", [make_example(f"question {index}", "answer")])).spooled
        waited.append(clock() - begun)
    assert sum(seconds >= 0.2 for seconds in waited) == 1
    bus.free.set()
    async with asyncio.timeout(5):
        while kept.spooled:
            await asyncio.sleep(0.01)
    assert len(bus.got) == 20
    assert not (await kept.record("teacher", [make_example("later", "answer")])).spooled
    assert kept.warning == ""
    await kept.close()


async def test_an_error_of_the_disk_does_not_end_the_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "DRAIN_SECONDS", 0.01)
    bus, spool = HangingBus(), Spool(tmp_path / "spool", 1 << 20)
    bus.free.set()
    await spool.append("teacher", Envelope((make_example("question", "answer"),)))
    failures = [OSError(5, "Input/output error")]
    drain = spool.drain

    async def fail_once(publish: object) -> int:
        if failures:
            raise failures.pop()
        return await drain(publish)  # type: ignore[arg-type]

    monkeypatch.setattr(spool, "drain", fail_once)
    kept = Recorder(cast(Bus, bus), spool)
    kept.start()
    async with asyncio.timeout(5):
        while spool.pending():
            await asyncio.sleep(0.01)
    await kept.close()
    assert len(bus.got) == 1
