"""One part as a process: back-off, too many deaths, the port it keeps."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from shammah_chassis.errors import StorageFullError
from shammah_local.errors import PartFailedError
from shammah_local.plan import Launch, Part, Ports
from shammah_local.processes import PartProcess, PartState


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_part(code: str, seen: list[Ports], ports: Mapping[str, int] | None = None) -> Part:
    def launch(known: Ports) -> Launch:
        seen.append(known)
        return Launch([sys.executable, "-S", "-c", code])

    return Part(name="part", stage=0, stop_rank=0, launch=launch, read_ports=lambda pid: ports)


async def wait_for_death(process: PartProcess) -> None:
    """Tick until the process was found dead."""
    end = time.monotonic() + 30
    while process.state is not PartState.RESTARTING:
        assert time.monotonic() < end
        await process.tick({})
        await asyncio.sleep(0.01)


async def test_a_part_that_dies_again_and_again_waits_longer_and_longer(tmp_path: Path) -> None:
    clock, seen = Clock(), []
    process = PartProcess(make_part("raise SystemExit(3)", seen), log=tmp_path / "log", lock=None, clock=clock)
    process.start({})
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        await wait_for_death(process)
        assert process.last_exit == 3
        clock.now += pause - 0.01
        await process.tick({})
        assert process.state is PartState.RESTARTING, f"restarted before {pause} s"
        clock.now += 0.02
        await process.tick({})
        assert process.state is PartState.STARTING
        # Lived for a while, but not for a whole minute: no five deaths within one.
        clock.now += 20.0
    await process.stop(asyncio.Event())
    assert process.restarts == 7


async def test_five_deaths_within_a_minute_are_an_error_that_quotes_the_log(tmp_path: Path) -> None:
    clock, seen = Clock(), []
    part = make_part("print('no model here'); raise SystemExit(3)", seen)
    process = PartProcess(part, log=tmp_path / "log", lock=None, clock=clock)
    process.start({})
    with pytest.raises(PartFailedError, match=r"part died 5 times within 60 s \(last exit 3\)[\s\S]*no model here"):
        for _ in range(5):
            await wait_for_death(process)
            clock.now += 8.01
            await process.tick({})
    assert len(seen) == 5


async def test_a_part_whose_settings_are_wrong_is_not_started_again(tmp_path: Path) -> None:
    seen: list[Ports] = []
    part = make_part("print('part: SHAMMAH_PART_PROT is not known'); raise SystemExit(78)", seen)
    process = PartProcess(part, log=tmp_path / "log", lock=None)
    process.start({})
    with pytest.raises(PartFailedError, match=r"part can't start with the settings and files[\s\S]*SHAMMAH_PART_PROT"):
        await wait_for_death(process)
    assert len(seen) == 1


async def test_after_a_long_life_the_pause_is_short_again(tmp_path: Path) -> None:
    clock, seen = Clock(), []
    process = PartProcess(make_part("pass", seen), log=tmp_path / "log", lock=None, clock=clock)
    process.start({})
    for lived in (0.0, 0.0, 100.0):
        clock.now += lived
        await wait_for_death(process)
        clock.now += 1.01 if lived else 2.01
        await process.tick({})
    assert process.state is PartState.STARTING
    await process.stop(asyncio.Event())


async def test_a_part_whose_files_find_no_room_is_started_when_they_do(tmp_path: Path) -> None:
    clock, full = Clock(), [True]

    def launch(known: Ports) -> Launch:
        if full:
            raise StorageFullError("no space left while writing nats.conf")
        return Launch([sys.executable, "-S", "-c", "raise SystemExit(3)"])

    part = Part(name="nats", stage=0, stop_rank=0, launch=launch, read_ports=lambda pid: None)
    process = PartProcess(part, log=tmp_path / "log", lock=None, clock=clock)
    process.state = PartState.RESTARTING
    await process.tick({})
    assert (process.state, process.restarts) == (PartState.RESTARTING, 0) and "no space left" in process.problem
    full.clear()
    clock.now += 31.0
    await process.tick({})
    assert (process.state, process.restarts, process.problem) == (PartState.STARTING, 1, "")
    await process.stop(asyncio.Event())


async def test_a_hurried_stop_does_not_wait(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    process = PartProcess(make_part(code, [], {"port": 1}), log=tmp_path / "log", lock=None)
    process.start({})
    end = time.monotonic() + 30
    while "deaf" not in (tmp_path / "log").read_text("utf-8"):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    hurry = asyncio.Event()
    hurry.set()
    assert not await process.stop(hurry)
    assert process.last_exit == -9
    assert process.pid is None
