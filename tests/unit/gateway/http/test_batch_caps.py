"""A cap in USD holds for batches too: no row makes the others cheaper."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from shammah_chassis.errors import BudgetError, InvalidInputError
from shammah_chassis.scopes import Caller
from shammah_gateway.http.batch_book import BatchBook
from shammah_gateway.money.caps import Caps
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.prices import load_prices

CI = Caller("ci", frozenset({"ask"}))


def row(most: object) -> dict[str, object]:
    message = {"role": "user", "content": "hi"}
    return {"custom_id": "x", "params": {"model": "claude-opus-4-5", "max_tokens": most, "messages": [message]}}


def take(cap: str, *most: object) -> Decimal | None:
    ledger = Ledger(None, load_prices(), Caps(usd_per_day=Decimal(cap)))
    hold = BatchBook(ledger, None).take(json.dumps({"requests": [row(one) for one in most]}).encode(), CI)
    return hold.amount if hold else None


def test_a_batch_that_may_cost_more_than_is_left_is_refused() -> None:
    assert take("5", 100, 100)
    with pytest.raises(BudgetError):
        take("0.05", *[100_000] * 20)


@pytest.mark.parametrize("most", [-(10**9), 0, 100_000.0, True, None, "100"])
def test_a_row_that_does_not_bound_its_answer_is_named(most: object) -> None:
    with pytest.raises(InvalidInputError, match=r"requests\.1\.params\.max_tokens .* above 0"):
        take("0.05", 10, most)
