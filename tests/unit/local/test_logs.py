"""A log is bounded while its part writes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from shammah_local import logs, processes
from shammah_local.logs import bound_log
from shammah_local.processes import PartProcess
from unit.local.test_processes import Clock, make_part


def test_what_is_over_the_bound_moves_beside_and_the_writer_goes_on(tmp_path: Path) -> None:
    log, older = tmp_path / "part.log", tmp_path / "part.log.1"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"".join(b"line %03d\n" % number for number in range(100)))
        bound_log(log, most=95)
        assert older.read_text("utf-8").splitlines() == [f"line {number:03d}" for number in range(90, 100)]
        assert older.stat().st_mode & 0o777 == 0o600
        writer.write(b"goes on\n")
        assert log.read_bytes() == b"goes on\n"
        bound_log(log, most=95)
        assert log.read_bytes() == b"goes on\n"


def test_a_log_that_can_not_be_copied_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    bound_log(log, most=10)
    log.write_bytes(b"x" * 100)
    (tmp_path / "part.log.1").mkdir()
    bound_log(log, most=10)
    assert log.read_bytes() == b"x" * 100


async def test_a_part_that_writes_without_end_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "bound_log", lambda log: logs.bound_log(log, most=1_000))
    log, clock = tmp_path / "part.log", Clock()
    writes = "import time\nwhile True: print('a query ' * 20, flush=True); time.sleep(0.001)"
    process = PartProcess(make_part(writes, []), log=log, lock=None, clock=clock)
    process.start({})
    assert log.stat().st_mode & 0o777 == 0o600
    older = tmp_path / "part.log.1"
    for _ in range(2):
        older.unlink(missing_ok=True)
        end = time.monotonic() + 30
        while not older.exists():
            assert time.monotonic() < end
            clock.now += logs.LOOK_SECONDS
            await process.tick({})
            await asyncio.sleep(0.01)
    await process.stop(asyncio.Event())
