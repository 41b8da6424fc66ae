"""What is booked, saved and held; caps, marks, the file and its opening have tests of their own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from shammah_chassis.errors import BudgetError
from shammah_gateway.money.usage import Usage
from support.gateway import make_ledger

SONNET = "claude-sonnet-5-5"
# 10 cents on Sonnet 5.5.
DIME = Usage(output_tokens=10_000)


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


def test_calls_in_flight_count_by_the_most_they_may_cost() -> None:
    ledger = make_ledger(usd_per_day=Decimal("0.25"))
    first = ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.take("answer", models=(SONNET,), worst=DIME)
    with pytest.raises(BudgetError, match="in flight"):
        ledger.take("answer", models=(SONNET,), worst=DIME)
    ledger.book("answer", model=SONNET, usage=Usage(output_tokens=10), hold=first)
    ledger.take("answer", models=(SONNET,), worst=DIME)


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


def test_a_call_of_an_earlier_run_is_held_again_without_being_counted_or_refused() -> None:
    ledger = make_ledger(usd_total=Decimal("0.05"))
    hold = ledger.hold_again("teach", models=("claude-sonnet-5-5",), worst=Usage(output_tokens=10_000))
    assert ledger.calls == 0 and ledger.summary().levels[0].held == Decimal("0.1")
    ledger.book("teach", model="claude-sonnet-5-5", usage=Usage(output_tokens=100), hold=hold)
    assert ledger.summary().levels[0].held == 0 and ledger.summary().spent_usd == Decimal("0.001")
    assert ledger.hold_again("teach", models=("no such model",), worst=Usage(output_tokens=1)).amount == 0
