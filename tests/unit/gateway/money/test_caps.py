"""A call over a cap is refused, of calls or of money, for the day, a caller or all of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import BudgetError, StorageFullError
from shammah_gateway.money.caps import Caps
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.store import LedgerFile
from shammah_gateway.money.usage import Usage, bound_usage
from support.gateway import make_ledger

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
