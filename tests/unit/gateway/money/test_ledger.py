from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import BudgetError, InvalidInputError, StorageFullError
from shammah_gateway.config import GatewaySettings
from shammah_gateway.money.caps import Caps
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.opening import open_ledger
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.store import LedgerFile
from shammah_gateway.money.usage import Usage, bound_usage
from support.gateway import make_ledger
from support.services import until

SONNET = "claude-sonnet-5-5"
# 10 cents on Sonnet 5.5.
DIME = Usage(output_tokens=10_000)
DAY = 86_400
NOON = 20_779 * DAY + DAY // 2


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def open_at(path: Path | None, clock: Clock, **caps: Any) -> Ledger:
    return Ledger(LedgerFile(path) if path else None, load_prices(), Caps(**caps), baseline=SONNET, clock=clock)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond a few bytes meanwhile, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


def test_audits_have_a_budget_of_their_own() -> None:
    ledger = make_ledger(calls={"audit": 1})
    ledger.take("audit")
    with pytest.raises(BudgetError):
        ledger.take("audit")
    ledger.take("answer")
    assert ledger.left("audit") == 0 and ledger.left("answer") is None


def test_the_smaller_limit_counts() -> None:
    ledger = make_ledger(calls_total=3, calls={"audit": 10})
    ledger.take("answer")
    assert ledger.left("audit") == 2


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


def test_money_is_kept_by_purpose_with_its_tokens(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = make_ledger(path)
    hold = ledger.take("teach")
    usage = Usage(input_tokens=1000, output_tokens=100, cache_write_5m=10, cache_write_1h=10, cache_read=500)
    assert ledger.book("teach", model=SONNET, usage=usage, hold=hold) == Decimal("0.003115")
    entry = make_ledger(path).summary().spent["teach"]
    assert (entry.calls, entry.input_tokens, entry.output_tokens) == (1, 1000, 100)
    assert (entry.cache_write_tokens, entry.cache_read_tokens, entry.usd) == (20, 500, Decimal("0.003115"))


def test_an_unknown_model_is_counted_and_never_costs_zero() -> None:
    ledger = make_ledger()
    assert ledger.book("answer", model="gpt-oss", usage=DIME) is None
    summary = ledger.summary()
    assert (summary.unknown_calls, summary.unknown_models, summary.spent_usd) == (1, {"gpt-oss": 1}, 0)


def test_names_of_unknown_models_do_not_fill_the_ledger() -> None:
    ledger = make_ledger()
    for index in range(300):
        ledger.book("answer", model=f"m{index}", usage=DIME)
    models = ledger.summary().unknown_models
    assert len(models) == 101 and sum(models.values()) == 300


def test_savings_are_counted_against_the_named_baseline_and_net_of_learning() -> None:
    ledger = make_ledger(baseline="claude-opus-5")
    for _ in range(10):
        ledger.book_saved(input_tokens=1000, output_tokens=100)
    ledger.book("answer", model=SONNET, usage=DIME)
    ledger.book("audit", model=SONNET, usage=Usage(output_tokens=1000))
    summary = ledger.summary()
    assert summary.saved["claude-opus-5"].usd == summary.saved_usd == Decimal("0.075")
    assert (summary.spent_usd, summary.learning_usd, summary.net_usd) == tuple(map(Decimal, ("0.11", "0.01", "0.065")))


def test_savings_against_an_unknown_baseline_are_unknown() -> None:
    ledger = make_ledger(baseline="my-model")
    ledger.book_saved(input_tokens=1000, output_tokens=100)
    entry = ledger.summary().saved["my-model"]
    assert (entry.answers, entry.unknown_answers, entry.input_tokens, entry.usd) == (1, 1, 1000, 0)


def test_a_day_has_its_own_cap_in_utc() -> None:
    clock = Clock()
    ledger = open_at(None, clock, usd_per_day=Decimal("0.25"))
    for _ in range(2):
        hold = ledger.take("answer", models=(SONNET,), worst=DIME)
        ledger.book("answer", model=SONNET, usage=DIME, hold=hold)
    with pytest.raises(BudgetError, match="usd_per_day"):
        ledger.take("answer", models=(SONNET,), worst=DIME)
    clock.now = (NOON // DAY + 1) * DAY - 1
    with pytest.raises(BudgetError):
        ledger.take("answer", models=(SONNET,), worst=DIME)
    clock.now += 1
    ledger.take("answer", models=(SONNET,), worst=DIME)
    clock.now -= 2
    # A clock that is set back over midnight does not open the old day again.
    assert ledger.summary().today.calls == 1


def test_calls_in_flight_count_by_the_most_they_may_cost() -> None:
    ledger = make_ledger(usd_per_day=Decimal("0.25"))
    first = ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.take("answer", models=(SONNET,), worst=DIME)
    with pytest.raises(BudgetError, match="in flight"):
        ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.book("answer", model=SONNET, usage=Usage(output_tokens=10), hold=first)
    ledger.take("answer", models=(SONNET,), worst=DIME)


def test_each_caller_has_a_cap_and_the_gateway_itself_has_none() -> None:
    ledger = make_ledger(usd_per_caller=Decimal("0.15"))
    for caller in ("ann", "bob", ""):
        hold = ledger.take("answer", caller=caller, models=(SONNET,), worst=DIME)
        ledger.book("answer", caller=caller, model=SONNET, usage=DIME, hold=hold)
    with pytest.raises(BudgetError, match="'ann'"):
        ledger.take("answer", caller="ann", models=(SONNET,), worst=DIME)
    ledger.take("audit", models=(SONNET,), worst=DIME)
    levels = {level.caller: level.charged for level in ledger.summary().levels}
    assert levels == {"ann": Decimal("0.1"), "bob": Decimal("0.1")}


def test_the_total_cap_outlives_days_and_restarts(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.json", Clock()
    ledger = open_at(path, clock, usd_total=Decimal("0.15"))
    hold = ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.book("answer", model=SONNET, usage=DIME, hold=hold)
    clock.now += 3 * DAY
    again = open_at(path, clock, usd_total=Decimal("0.15"))
    assert again.summary().today.usd == 0
    with pytest.raises(BudgetError, match="usd_total"):
        again.take("answer", models=(SONNET,), worst=DIME)


@pytest.mark.parametrize("models", [("my-model",), (SONNET, "my-model")])
def test_with_a_cap_in_usd_an_unknown_price_is_refused_by_name(models: tuple[str, ...]) -> None:
    ledger = make_ledger(usd_per_day=Decimal(100))
    with pytest.raises(BudgetError, match=r"my-model.*SHAMMAH_GATEWAY_PRICES_FILE"):
        ledger.take("answer", models=models)
    with pytest.raises(BudgetError, match="no model"):
        ledger.take("answer")
    assert ledger.calls == 0
    make_ledger(calls_total=5).take("answer", models=models)


def test_a_free_call_is_allowed_at_the_cap() -> None:
    ledger = make_ledger(usd_per_day=Decimal(0))
    ledger.take("answer", models=("recorded",), worst=bound_usage(100, 100))
    with pytest.raises(BudgetError):
        ledger.take("answer", models=(SONNET,), worst=bound_usage(100, 100))


def test_what_a_killed_process_may_have_spent_counts_against_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    make_ledger(path, usd_per_day=Decimal("0.25")).take("answer", caller="ann", models=(SONNET,), worst=DIME)
    again = make_ledger(path, usd_per_day=Decimal("0.15"))
    with pytest.raises(BudgetError):
        again.take("answer", models=(SONNET,), worst=DIME)
    summary = again.summary()
    assert summary.spent_usd == 0 and Decimal("0.1") <= summary.unsettled_usd <= Decimal("0.25")


def test_a_call_that_failed_unbilled_gives_its_money_back_and_one_without_an_end_does_not() -> None:
    ledger = make_ledger(usd_per_day=Decimal("0.15"))
    failed = ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.release(failed)
    lost = ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.give_up(lost)
    ledger.give_up(lost)
    ledger.release(lost)
    with pytest.raises(BudgetError):
        ledger.take("answer", models=(SONNET,), worst=DIME)
    summary = ledger.summary()
    assert (summary.unsettled_usd, summary.spent_usd, summary.unknown_calls) == (Decimal("0.1"), 0, 1)


def test_a_reply_of_unknown_price_keeps_what_was_held_for_it() -> None:
    ledger = make_ledger(usd_per_day=Decimal("0.15"))
    hold = ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.book("answer", model=SONNET, usage=Usage(output_tokens=1, unpriced=("web_search_requests",)), hold=hold)
    with pytest.raises(BudgetError):
        ledger.take("answer", models=(SONNET,), worst=DIME)


def test_a_check_takes_nothing() -> None:
    ledger = make_ledger(calls_total=1)
    ledger.check("answer")
    ledger.take("answer")
    with pytest.raises(BudgetError):
        ledger.check("answer")
    assert ledger.calls == 1


@pytest.mark.parametrize(("at_cap", "expected"), [("refuse", False), ("degrade", True)])
def test_what_happens_at_the_cap_is_as_configured(at_cap: str, expected: bool) -> None:
    ledger = make_ledger(at_cap=at_cap)
    assert ledger.degrades(BudgetError("spent")) is expected
    assert ledger.degrades(StorageFullError("full")) is False


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


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 2}', b'{"charged": {"total": "-1"}}', b'{"spent": 3}']
)
def test_a_damaged_file_is_a_named_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    settings = GatewaySettings(data_dir=tmp_path)
    settings.own_dir.mkdir()
    path = settings.own_dir / "ledger.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"ledger\.json is damaged .* move it away"):
        open_ledger(settings)
    assert path.read_bytes() == content


def test_the_calls_of_an_earlier_gateway_still_count(tmp_path: Path) -> None:
    settings = GatewaySettings(data_dir=tmp_path, teacher_max_calls=5)
    settings.own_dir.mkdir()
    old = {"answer": {"calls": 4, "input_tokens": 40, "output_tokens": 8}}
    (settings.own_dir / "teacher_calls.json").write_text(json.dumps(old))
    ledger = open_ledger(settings)
    assert (ledger.calls, ledger.left("answer"), ledger.summary().unknown_calls) == (4, 1, 4)


def test_settings_make_the_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DATA_DIR": str(tmp_path), "USD_PER_DAY": "2.50", "AT_CAP": "degrade"}.items():
        monkeypatch.setenv(f"SHAMMAH_GATEWAY_{name}", value)
    ledger = open_ledger(GatewaySettings.load())
    assert ledger.caps == Caps(calls={"audit": 1000}, usd_per_day=Decimal("2.50"), at_cap="degrade")
    assert ledger.baseline == "claude-sonnet-5-5"


def test_a_call_of_an_earlier_run_is_held_again_without_being_counted_or_refused() -> None:
    ledger = make_ledger(usd_total=Decimal("0.05"))
    hold = ledger.hold_again("teach", models=("claude-sonnet-5-5",), worst=Usage(output_tokens=10_000))
    assert ledger.calls == 0 and ledger.summary().levels[0].held == Decimal("0.1")
    ledger.book("teach", model="claude-sonnet-5-5", usage=Usage(output_tokens=100), hold=hold)
    assert ledger.summary().levels[0].held == 0 and ledger.summary().spent_usd == Decimal("0.001")
    assert ledger.hold_again("teach", models=("no such model",), worst=Usage(output_tokens=1)).amount == 0
