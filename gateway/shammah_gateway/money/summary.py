"""The state of the money as one value, for status and metrics. It changes nothing.

net = saved - what learning cost (teaching, audits, comparisons). Forwarded answers are not taken off: they would have
been paid for without a student too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from shammah_gateway.money.books import ZERO, Books, Saved, Spent, Today
from shammah_gateway.money.caps import Caps, Level, Purpose

LEARNING: tuple[Purpose, ...] = ("teach", "audit", "compare")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneySummary:
    """Money since the ledger began, in USD; `today` since 00:00 UTC of `day`.

    `spent` by purpose. `saved` by the baseline it was counted against; its tokens are estimates (the student's own).
    `unknown_calls` have no known price and are in no sum. `unsettled_usd` may have been spent by calls whose outcome
    nobody saw; it counts against caps only. `levels` are the caps in USD, `callers` what was charged to each today.
    """

    day: str
    spent: Mapping[Purpose, Spent]
    saved: Mapping[str, Saved]
    today: Today
    baseline: str
    unknown_models: Mapping[str, int]
    unsettled_usd: Decimal
    caps: Caps
    levels: tuple[Level, ...]
    callers: Mapping[str, Decimal]
    prices_name: str
    prices_captured: date | None
    warning: str = ""

    @property
    def spent_usd(self) -> Decimal:
        """All that is known to be spent."""
        return sum((entry.usd for entry in self.spent.values()), ZERO)

    @property
    def learning_usd(self) -> Decimal:
        """What teaching, audits and comparisons cost."""
        return sum((self.spent[purpose].usd for purpose in LEARNING), ZERO)

    @property
    def saved_usd(self) -> Decimal:
        """What the local answers would have cost: an estimate."""
        return sum((entry.usd for entry in self.saved.values()), ZERO)

    @property
    def net_usd(self) -> Decimal:
        """Saved minus what learning cost."""
        return self.saved_usd - self.learning_usd

    @property
    def unknown_calls(self) -> int:
        """Calls that are in no sum."""
        return sum(entry.unknown_calls for entry in self.spent.values())


def summarise(
    books: Books,
    *,
    caps: Caps,
    levels: tuple[Level, ...],
    baseline: str,
    prices_name: str,
    prices_captured: date | None,
    warning: str,
) -> MoneySummary:
    """Return a summary that later bookings do not change."""
    return MoneySummary(
        day=books.day,
        spent={purpose: replace(entry) for purpose, entry in books.spent.items()},
        saved={name: replace(entry) for name, entry in books.saved.items()},
        today=replace(books.today),
        baseline=baseline,
        unknown_models=dict(books.unknown_models),
        unsettled_usd=books.unsettled,
        caps=caps,
        levels=levels,
        callers=dict(books.charged.callers),
        prices_name=prices_name,
        prices_captured=prices_captured,
        warning=warning,
    )
