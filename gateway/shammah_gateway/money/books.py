"""What the ledger counts, as plain values; they are also the form of its file. It decides nothing.

Money is exact (Decimal). `charged` is what counts against caps: what was booked and what may have been spent by calls
whose outcome nobody saw. `marks` run ahead of it: up to a mark, calls may be made without another durable write;
after a crash the marks are what counts, so that a count may be too high then, never too low.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from shammah_gateway.money.caps import PURPOSES, Purpose

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
ZERO = Decimal(0)


@dataclass(slots=True)
class Spent:
    """One purpose: calls made; the tokens of those that were booked; their USD where the price was known."""

    calls: Count = 0
    unknown_calls: Count = 0
    input_tokens: Count = 0
    cache_write_tokens: Count = 0
    cache_read_tokens: Count = 0
    output_tokens: Count = 0
    usd: Amount = ZERO


@dataclass(slots=True)
class Saved:
    """Local answers against one baseline. The tokens are the student's: estimates of the baseline's."""

    answers: Count = 0
    unknown_answers: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    usd: Amount = ZERO


@dataclass(slots=True)
class Charged:
    """USD against the caps; `day` and `callers` are of the books' day only."""

    total: Amount = ZERO
    day: Amount = ZERO
    callers: dict[str, Amount] = field(default_factory=dict)

    def add(self, caller: str, amount: Decimal) -> None:
        """Charge an amount; without a caller it is the gateway's own."""
        self.total += amount
        self.day += amount
        if caller:
            self.callers[caller] = self.callers.get(caller, ZERO) + amount


@dataclass(slots=True)
class Today:
    """What was booked on the books' day, for people."""

    calls: Count = 0
    usd: Amount = ZERO
    saved_usd: Amount = ZERO


@dataclass(slots=True)
class Books:
    """All that is kept. `day` is a date in UTC ("2026-11-22"); `unsettled` USD of calls whose outcome nobody saw."""

    version: Literal[1] = 1
    day: str = ""
    spent: dict[Purpose, Spent] = field(default_factory=lambda: {purpose: Spent() for purpose in PURPOSES})
    # Calls that a crash may have hidden: they count against caps.
    lost_calls: dict[Purpose, Count] = field(default_factory=dict)
    saved: dict[str, Saved] = field(default_factory=dict)
    unknown_models: dict[str, Count] = field(default_factory=dict)
    unsettled: Amount = ZERO
    today: Today = field(default_factory=Today)
    charged: Charged = field(default_factory=Charged)
    mark_calls: dict[Purpose, Count] = field(default_factory=dict)
    mark_usd: Charged = field(default_factory=Charged)

    def counted_calls(self, purpose: Purpose) -> int:
        """Return the calls of a purpose that count against caps."""
        return self.spent[purpose].calls + self.lost_calls.get(purpose, 0)

    def all_calls(self) -> int:
        """Return the calls of all purposes that count against caps."""
        return sum(self.counted_calls(purpose) for purpose in self.spent)

    def turn_day(self, day: str) -> None:
        """Begin a new day: its caps are whole again."""
        self.day = day
        self.today = Today()
        for level in (self.charged, self.mark_usd):
            level.day = ZERO
            level.callers = {}

    def settle_marks(self) -> None:
        """After a start: what was allowed without a write may have happened, so it counts.

        A ledger that was closed in order has marks that are equal to its counts.
        """
        for purpose in PURPOSES:
            hidden = self.mark_calls.get(purpose, 0) - self.counted_calls(purpose)
            if hidden > 0:
                self.lost_calls[purpose] = self.lost_calls.get(purpose, 0) + hidden
        hidden_usd = max(ZERO, self.mark_usd.total - self.charged.total)
        self.unsettled += hidden_usd
        self.charged.total += hidden_usd
        self.charged.day = max(self.charged.day, self.mark_usd.day)
        for caller, amount in self.mark_usd.callers.items():
            self.charged.callers[caller] = max(self.charged.callers.get(caller, ZERO), amount)
