"""The marks of the ledger's file: up to them, calls may be made without a further durable write.

They run ahead a little, so that a cap does not cost each call a wait for the disk, and a crash costs at most so much
of a budget. It knows no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from shammah_gateway.money.books import ZERO, Books, Charged
from shammah_gateway.money.caps import PURPOSES, Caps, Purpose


@dataclass(frozen=True, slots=True)
class Marks:
    """Up to where calls are allowed: their numbers by purpose, and the USD."""

    calls: dict[Purpose, int]
    usd: Charged


# A write allows this share of what a cap has left, or the cost of so many further calls as the one at hand.
_AHEAD_SHARE = Decimal("0.01")
_AHEAD_HOLDS = 2
_AHEAD_CALLS = 64


def left_calls(books: Books, caps: Caps, purpose: Purpose) -> int | None:
    """Return how many calls of a purpose the caps leave; None for no cap."""
    limits = []
    if caps.calls_total is not None:
        limits.append(caps.calls_total - books.all_calls())
    if purpose in caps.calls:
        limits.append(caps.calls[purpose] - books.counted_calls(purpose))
    return max(0, min(limits)) if limits else None


def is_beyond(books: Books, caps: Caps, held: Charged, *, purpose: Purpose, caller: str) -> bool:
    """Say whether what is counted and held now is more than the marks allow, where a cap exists."""
    marks, charged = books.mark_usd, books.charged
    if left_calls(books, caps, purpose) is not None and books.counted_calls(purpose) > books.mark_calls.get(purpose, 0):
        return True
    if caps.usd_total is not None and charged.total + held.total > marks.total:
        return True
    if caps.usd_per_day is not None and charged.day + held.total > marks.day:
        return True
    used = charged.callers.get(caller, ZERO) + held.callers.get(caller, ZERO)
    return caps.usd_per_caller is not None and bool(caller) and used > marks.callers.get(caller, ZERO)


def is_near(books: Books, caps: Caps, held: Charged, *, purpose: Purpose, caller: str, amount: Decimal) -> bool:
    """Say whether half of what the marks once allowed ahead is used, for calls like the one at hand."""
    ahead = _ahead_calls(books, caps, purpose)
    if ahead > 1 and books.counted_calls(purpose) + ahead // 2 > books.mark_calls.get(purpose, 0):
        return True
    now, marks = exact_usd(books, held), books.mark_usd
    used = now.callers.get(caller, ZERO)
    levels = [(caps.usd_total, now.total, marks.total), (caps.usd_per_day, now.day, marks.day)]
    if caller:
        levels.append((caps.usd_per_caller, used, marks.callers.get(caller, ZERO)))
    return any(usd + _step(cap, usd, amount) / 2 > mark for cap, usd, mark in levels if cap is not None)


def plan_marks(books: Books, caps: Caps, held: Charged, *, purpose: Purpose, amount: Decimal) -> Marks:
    """Return marks at what is counted and held, and ahead of it for calls like the one at hand, of at most `amount`.

    The books must be durable with them before a call is made on their strength. None is below those of now: a call
    that these allow may be made while the new ones are on their way to the disk.
    """
    now = books.mark_calls
    calls = {name: max(now.get(name, 0), books.counted_calls(name)) for name in PURPOSES}
    calls[purpose] = max(calls[purpose], books.counted_calls(purpose) + _ahead_calls(books, caps, purpose))
    wanted, usd = _run_ahead(exact_usd(books, held), caps, amount), books.mark_usd
    callers = {name: max(used, usd.callers.get(name, ZERO)) for name, used in wanted.callers.items()}
    return Marks(calls, Charged(max(wanted.total, usd.total), max(wanted.day, usd.day), {**usd.callers, **callers}))


def lower_marks(books: Books, caps: Caps, held: Charged) -> None:
    """Take marks down that calls did not need; never up, so that it is safe before the books are durable."""
    wanted, marks = _run_ahead(exact_usd(books, held), caps, ZERO), books.mark_usd
    callers = {name: min(used, wanted.callers.get(name, ZERO)) for name, used in marks.callers.items()}
    books.mark_usd = Charged(min(marks.total, wanted.total), min(marks.day, wanted.day), callers)


def close_marks(books: Books, held: Charged) -> None:
    """Set the marks to exactly what is counted and held: nothing more will be called."""
    books.mark_calls = {purpose: books.counted_calls(purpose) for purpose in PURPOSES}
    books.mark_usd = exact_usd(books, held)


def exact_usd(books: Books, held: Charged) -> Charged:
    """Return what is charged and held, level by level."""
    charged = books.charged
    callers = dict(charged.callers)
    for caller, amount in held.callers.items():
        callers[caller] = callers.get(caller, ZERO) + amount
    return Charged(charged.total + held.total, charged.day + held.total, callers)


def _ahead_calls(books: Books, caps: Caps, purpose: Purpose) -> int:
    return min((left_calls(books, caps, purpose) or 0) // 100, _AHEAD_CALLS)


def _run_ahead(now: Charged, caps: Caps, amount: Decimal) -> Charged:
    return Charged(
        now.total + _step(caps.usd_total, now.total, amount),
        now.day + _step(caps.usd_per_day, now.day, amount),
        {name: used + _step(caps.usd_per_caller, used, amount) for name, used in now.callers.items()},
    )


def _step(cap: Decimal | None, used: Decimal, amount: Decimal) -> Decimal:
    if cap is None:
        return ZERO
    left = max(ZERO, cap - used)
    return min(left, max(left * _AHEAD_SHARE, amount * _AHEAD_HOLDS))
