"""The ledger is written behind the traffic, and a disk that is full is told of."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from shammah_chassis.errors import StorageFullError
from shammah_gateway.money.usage import Usage
from support.gateway import make_ledger

SONNET = "claude-sonnet-5-5"
# 10 cents on Sonnet 5.5.
DIME = Usage(output_tokens=10_000)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a few bytes meanwhile, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_only_a_call_under_a_limit_is_refused(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger.json", calls={"audit": 5})
    with full_disk():
        ledger.take("answer")
        ledger.book("answer", model=SONNET, usage=DIME)
        with pytest.raises(StorageFullError):
            ledger.take("audit")
    assert (ledger.calls, ledger.left("audit")) == (1, 5)
    assert ledger.summary().spent_usd == Decimal("0.1")
    assert "ledger.json" in ledger.summary().warning


async def test_a_booking_is_on_disk_within_a_second_and_costs_the_caller_no_write(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = make_ledger(path)
    for _ in range(50):
        ledger.book("answer", model=SONNET, usage=DIME, hold=ledger.take("answer"))
    assert not path.exists()
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    # Killed here: another process reads what is there.
    assert make_ledger(path).summary().spent_usd == Decimal(5)
    await ledger.close()


async def test_a_write_that_fails_is_warned_of_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = make_ledger(path)

    async def until_warning(present: bool) -> None:
        async with asyncio.timeout(10):
            while bool(ledger.summary().warning) is not present:
                await asyncio.sleep(0.02)

    with full_disk():
        ledger.book("answer", model=SONNET, usage=DIME)
        await until_warning(True)
    await until_warning(False)
    assert make_ledger(path).summary().spent_usd == Decimal("0.1")
    await ledger.close()


async def test_a_closed_ledger_lost_nothing_and_still_keeps_a_late_booking(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = make_ledger(path)
    ledger.book("answer", model=SONNET, usage=DIME)
    await ledger.close()
    assert make_ledger(path).summary().spent_usd == Decimal("0.1")
    ledger.book("answer", model=SONNET, usage=DIME)
    assert make_ledger(path).summary().spent_usd == Decimal("0.2")
