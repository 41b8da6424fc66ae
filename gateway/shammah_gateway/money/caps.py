"""Hard caps on teacher calls: how many, and how much money. It counts nothing itself.

A cap is checked before a call, with the most that the call may cost; so the money can't run over it by a call whose
prompt is all in its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from shammah_chassis.errors import BudgetError, InvalidInputError, ShammahError

Purpose = Literal["answer", "teach", "audit", "compare"]
PURPOSES: tuple[Purpose, ...] = ("answer", "teach", "audit", "compare")
AtCap = Literal["refuse", "degrade"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Limits; None means none. `calls` bounds single purposes. A day is one in UTC."""

    calls_total: int | None = None
    calls: Mapping[Purpose, int] = field(default_factory=dict)
    usd_total: Decimal | None = None
    usd_per_day: Decimal | None = None
    usd_per_caller: Decimal | None = None
    at_cap: AtCap = "refuse"

    @property
    def any_usd(self) -> bool:
        """Whether money is capped: then a call with an unknown price is refused."""
        return not (self.usd_total is None and self.usd_per_day is None and self.usd_per_caller is None)


@dataclass(frozen=True, slots=True)
class Level:
    """How far one cap in USD is used: what was `charged` against it, and what calls in flight may cost (`held`)."""

    name: Literal["usd_total", "usd_per_day", "usd_per_caller_per_day"]
    cap: Decimal
    charged: Decimal
    held: Decimal
    caller: str = ""

    @property
    def left(self) -> Decimal:
        """What a further call may cost."""
        return max(Decimal(0), self.cap - self.charged - self.held)

    @property
    def title(self) -> str:
        """The cap in words."""
        of = f" of {self.caller!r}" if self.caller else ""
        until = "" if self.name == "usd_total" else " (until 00:00 UTC)"
        return f"{self.name}{of}{until}"


def check_level(level: Level, amount: Decimal | None) -> None:
    """Raise BudgetError unless a call that costs at most `amount` stays within the cap.

    None: nobody said how much; it may be made while anything is left. A call that is free may always be made.
    InvalidInputError for less than nothing: that would make room for others.
    """
    if amount is not None and amount < 0:
        raise InvalidInputError(f"a call is said to cost {amount} USD at most; allowed: 0 or more")
    if level.left if amount is None else amount == 0 or level.charged + level.held + amount <= level.cap:
        return
    used = f"{show_usd(level.charged)} of {show_usd(level.cap)} are spent"
    if level.held:
        used += f", calls in flight may cost {show_usd(level.held)}"
    need = f"; this call may cost up to {show_usd(amount)}" if amount else ""
    raise BudgetError(f"the cap {level.title} does not allow the call: {used}{need}")


def degrades(caps: Caps, error: ShammahError) -> bool:
    """Say whether a labelled local answer is to be given instead of this error: at a cap, if so configured."""
    return caps.at_cap == "degrade" and isinstance(error, BudgetError)


def show_usd(amount: Decimal) -> str:
    """Return an amount for people: cents, or four digits of what is less than a dollar."""
    if amount and abs(amount) < 1:
        return f"{amount.normalize():.4g} USD"
    return f"{amount:.2f} USD"
