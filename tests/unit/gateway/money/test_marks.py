"""A process that is killed gives no call and no money back, and calls seldom wait for the disk."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path

import pytest
from shammah_chassis.errors import BudgetError
from shammah_gateway.money.caps import Caps
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.store import LedgerFile
from shammah_gateway.money.usage import Usage
from support.gateway import make_ledger
from support.services import until

SONNET = "claude-sonnet-5-5"
# 10 cents on Sonnet 5.5.
DIME = Usage(output_tokens=10_000)


def test_a_budget_of_calls_is_hard_and_outlives_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = make_ledger(path, calls_total=2)
    ledger.take("answer")
    ledger.take("teach")
    # Not closed: the process was killed here.
    again = make_ledger(path, calls_total=2)
    assert again.calls == 2
    with pytest.raises(BudgetError):
        again.take("answer")


async def test_a_crash_never_gives_a_call_back_and_costs_little(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = make_ledger(path, calls_total=1000)
    writes = 0
    seen = b""
    for _ in range(200):
        ledger.take("answer")
        if path.read_bytes() != seen:
            writes, seen = writes + 1, path.read_bytes()
        left = make_ledger(path, calls_total=1000).left("answer")
        assert left is not None and 800 - 10 <= left <= ledger.left("answer")  # type: ignore[operator]
    # Far fewer writes than calls: the caller does not wait for the disk each time.
    assert writes <= 60
    await ledger.close()
    assert make_ledger(path, calls_total=1000).left("answer") == 800


class WatchedFile(LedgerFile):
    """Notes which writes the event loop had to wait for; holds the others back until `go` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.waited = 0
        self.behind = 0
        self.go = threading.Event()
        self.go.set()

    def write(self, image: bytes, number: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self.waited += 1
        else:
            self.go.wait(10)
            self.behind += 1
        super().write(image, number)


async def test_the_marks_move_on_before_a_call_has_to_wait_for_the_disk(tmp_path: Path) -> None:
    file = WatchedFile(tmp_path / "ledger.json")
    ledger = Ledger(file, load_prices(), Caps(calls_total=100_000, calls={"audit": 90_000}))
    for number in range(1000):
        ledger.take("audit" if number % 3 else "answer")
        left = make_ledger(file.path, calls_total=100_000).left("answer")
        assert left is not None and left <= 100_000 - number - 1
        if number % 16 == 0:
            await until(lambda: ledger._coming is None)
    # The first call of each purpose, and nothing later.
    assert file.waited <= 2 and file.behind > 20
    await ledger.close()
    assert make_ledger(file.path, calls_total=100_000).left("answer") == 99_000


async def test_a_disk_that_is_too_slow_is_waited_for_and_no_call_is_lost(tmp_path: Path) -> None:
    file = WatchedFile(tmp_path / "ledger.json")
    ledger = Ledger(file, load_prices(), Caps(calls_total=100_000))
    ledger.take("answer")
    file.go.clear()
    for number in range(2, 301):
        ledger.take("answer")
        left = make_ledger(file.path, calls_total=100_000).left("answer")
        assert left is not None and left <= 100_000 - number
    assert 2 <= file.waited <= 10
    file.go.set()
    await ledger.close()
    assert make_ledger(file.path, calls_total=100_000).left("answer") == 99_700


def test_what_a_killed_process_may_have_spent_counts_against_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    make_ledger(path, usd_per_day=Decimal("0.25")).take("answer", caller="ann", models=(SONNET,), worst=DIME)
    again = make_ledger(path, usd_per_day=Decimal("0.15"))
    with pytest.raises(BudgetError):
        again.take("answer", models=(SONNET,), worst=DIME)
    summary = again.summary()
    assert summary.spent_usd == 0 and Decimal("0.1") <= summary.unsettled_usd <= Decimal("0.25")
