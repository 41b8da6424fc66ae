"""A cap in USD holds for batches too: no row makes the others cheaper."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from shammah_chassis.errors import BudgetError, InvalidInputError
from shammah_chassis.scopes import Caller
from shammah_gateway.http.batch_book import BatchBook
from shammah_gateway.money.caps import Caps, Level, check_level
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.usage import Usage

CI = Caller("ci", frozenset({"ask"}))


def row(most: object) -> dict[str, object]:
    message = {"role": "user", "content": "hi"}
    return {"custom_id": "x", "params": {"model": "claude-opus-4-5", "max_tokens": most, "messages": [message]}}


def take(cap: str, *most: object) -> Decimal | None:
    ledger = Ledger(None, load_prices(), Caps(usd_per_day=Decimal(cap)))
    hold = BatchBook(ledger, None).take(json.dumps({"requests": [row(one) for one in most]}).encode(), CI)
    return hold.amount if hold else None


def take_rows(cap: str, rows: object) -> Decimal | None:
    ledger = Ledger(None, load_prices(), Caps(usd_per_day=Decimal(cap)))
    hold = BatchBook(ledger, None).take(json.dumps({"requests": rows}).encode(), CI)
    return hold.amount if hold else None


def test_a_row_is_named_by_its_place_in_the_batch() -> None:
    with pytest.raises(InvalidInputError, match=r"requests\.2\.params\.max_tokens"):
        take_rows("5", [5, {"custom_id": "without"}, row(0)])


@pytest.mark.parametrize("rows", [5, "abc", None, {"a": 1}])
def test_what_is_no_list_of_rows_is_refused_in_words(rows: object) -> None:
    with pytest.raises(InvalidInputError, match="requests must be a list"):
        take_rows("5", rows)


def test_a_bound_below_nothing_makes_no_room() -> None:
    with pytest.raises(InvalidInputError, match="allowed: 0 or more"):
        check_level(Level("usd_per_day", Decimal(5), Decimal(5), Decimal(0)), Decimal(-1))


def test_no_usage_bounds_a_call_below_nothing() -> None:
    ledger = Ledger(None, load_prices(), Caps(usd_per_day=Decimal(1)))
    with pytest.raises(InvalidInputError, match="allowed: 0 or more"):
        ledger.take("answer", caller="ci", models=("claude-opus-4-5",), worst=Usage(output_tokens=-(10**9)))


def test_a_batch_that_may_cost_more_than_is_left_is_refused() -> None:
    assert take("5", 100, 100)
    with pytest.raises(BudgetError):
        take("0.05", *[100_000] * 20)


@pytest.mark.parametrize("most", [-(10**9), 0, 100_000.0, True, None, "100"])
def test_a_row_that_does_not_bound_its_answer_is_named(most: object) -> None:
    with pytest.raises(InvalidInputError, match=r"requests\.1\.params\.max_tokens .* above 0"):
        take("0.05", 10, most)
