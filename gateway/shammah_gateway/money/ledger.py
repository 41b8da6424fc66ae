"""The ledger: what teacher calls cost and local answers save, under hard caps, kept on disk. One per gateway.

Before a call `take`, after it `book`, `release` or `give_up`. Where a cap exists, a call is durable before it is made:
the file then holds marks up to which calls are allowed, a little ahead; they are moved on behind the traffic before
they are reached, so that a call waits for the disk only where that was too slow.
Everything else is written behind the traffic. It calls no teacher. All methods belong on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal

from shammah_chassis.errors import BudgetError, ShammahError, StorageFullError, UnavailableError

from shammah_gateway.money.books import ZERO, Books, Charged, Saved
from shammah_gateway.money.caps import Caps, Level, Purpose, check_level, degrades
from shammah_gateway.money.keeper import Keeper
from shammah_gateway.money.marks import Marks, close_marks, is_beyond, is_near, left_calls, lower_marks, plan_marks
from shammah_gateway.money.prices import PriceTable
from shammah_gateway.money.store import LedgerFile
from shammah_gateway.money.summary import MoneySummary, summarise
from shammah_gateway.money.usage import Usage

DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1)
# Names of models come from replies: a stranger's server must not fill the file.
_MAX_UNKNOWN = 100
_OTHERS = "(others)"


@dataclass(slots=True, eq=False)
class Hold:
    """A call that was taken: until it is closed, the most that it may cost counts against the caps."""

    purpose: Purpose
    caller: str
    amount: Decimal
    closed: bool = False


class Ledger:
    """Counts calls, tokens and USD. `file` None keeps nothing; `clock` returns Unix seconds.

    `baseline` is the model that savings are counted against. A caller "" is the gateway itself: the cap for each
    caller does not apply to it.
    """

    def __init__(
        self,
        file: LedgerFile | None,
        prices: PriceTable,
        caps: Caps,
        *,
        baseline: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.caps = caps
        self.prices = prices
        self.baseline = baseline
        self._clock = clock
        self._books = file.read() if file else Books()
        self._books.settle_marks()
        self._held = Charged()
        # Marks on their way to the disk. Every image that is made meanwhile has them; they hold when they are there.
        self._coming: Marks | None = None
        self._keeper = Keeper(file, lambda: self._render(file) if file else b"")
        self._date = date.fromisoformat(self._books.day) if self._books.day else _EPOCH
        self._day_number = (self._date - _EPOCH).days
        self._turn_day()

    @property
    def calls(self) -> int:
        """All calls so far."""
        return sum(entry.calls for entry in self._books.spent.values())

    def left(self, purpose: Purpose) -> int | None:
        """How many calls are left for a purpose; None for no limit. Money is not looked at."""
        return left_calls(self._books, self.caps, purpose)

    def degrades(self, error: ShammahError) -> bool:
        """Say whether a labelled local answer is to be given instead of this error."""
        return degrades(self.caps, error)

    def check(
        self, purpose: Purpose, *, caller: str = "", models: tuple[str, ...] = (), worst: Usage | None = None
    ) -> None:
        """Raise as `take` would, and take nothing."""
        self._turn_day()
        self._check(purpose, caller, self._bound(models, worst))

    def take(
        self, purpose: Purpose, *, caller: str = "", models: tuple[str, ...] = (), worst: Usage | None = None
    ) -> Hold:
        """Count one call, before it is made.

        `models` are those it may go to, `worst` the most that it can be billed (`usage.bound_usage`). Both are looked
        at under a cap in USD only; without `worst` a single call may go over the cap, the next one is refused.

        Raises:
            BudgetError: a cap is reached, or one in USD could not be kept since the price is not known.
            StorageFullError, UnavailableError: there is a cap, and the call can't be kept on disk.
        """
        self._turn_day()
        amount = self._bound(models, worst)
        self._check(purpose, caller, amount)
        hold = Hold(purpose, caller, amount or ZERO)
        self._count(hold, 1)
        try:
            self._secure(hold)
        except (StorageFullError, UnavailableError):
            # A cap that a restart would forget is no hard one.
            self._count(hold, -1)
            raise
        self._keeper.note()
        self._reach_ahead(hold)
        return hold

    def hold_again(
        self, purpose: Purpose, *, caller: str = "", models: tuple[str, ...] = (), worst: Usage | None = None
    ) -> Hold:
        """Hold what a call may still cost that was taken by an earlier run of this gateway.

        It is neither counted (it was) nor refused (it is made); an amount whose price is not known is not held.
        """
        self._turn_day()
        try:
            amount = self._bound(models, worst)
        except BudgetError:
            amount = None
        hold = Hold(purpose, caller, amount or ZERO)
        if hold.amount:
            self._held.add(caller, hold.amount)
            self._keeper.note()
        return hold

    def book(
        self, purpose: Purpose, *, model: str, usage: Usage, caller: str = "", hold: Hold | None = None
    ) -> Decimal | None:
        """Book what a call was billed and close its hold; returns the USD, None when the price is not known."""
        self._turn_day()
        books = self._books
        spent = books.spent[purpose]
        spent.input_tokens += usage.input_tokens
        spent.cache_write_tokens += usage.cache_write_5m + usage.cache_write_1h
        spent.cache_read_tokens += usage.cache_read
        spent.output_tokens += usage.output_tokens
        held = self._close(hold)
        usd = self.prices.price(model, usage, self._date)
        if usd is None:
            spent.unknown_calls += 1
            self._note_unknown(model)
            books.unsettled += held
        else:
            spent.usd += usd
            books.today.usd += usd
        books.charged.add(caller, held if usd is None else usd)
        self._keeper.note()
        return usd

    def book_saved(self, *, input_tokens: int, output_tokens: int, caller: str = "") -> None:
        """Book a local answer: what the baseline would have cost, by the student's tokens (an estimate).

        An unknown price of the baseline is counted. Savings are not kept by `caller`; the doors say it all the same.
        """
        self._turn_day()
        saved = self._books.saved.setdefault(self.baseline, Saved())
        saved.answers += 1
        saved.input_tokens += input_tokens
        saved.output_tokens += output_tokens
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        usd = self.prices.price(self.baseline, usage, self._date)
        if usd is None:
            saved.unknown_answers += 1
        else:
            saved.usd += usd
            self._books.today.saved_usd += usd
        self._keeper.note()

    def release(self, hold: Hold) -> None:
        """Close the hold of a call that failed and was not billed. A closed one is left as it is."""
        self._close(hold)

    def give_up(self, hold: Hold) -> None:
        """Close the hold of a call whose outcome nobody saw: what it may have cost stays charged against the caps."""
        if hold.closed:
            return
        self._turn_day()
        amount = self._close(hold)
        self._books.spent[hold.purpose].unknown_calls += 1
        self._books.unsettled += amount
        self._books.charged.add(hold.caller, amount)
        self._keeper.note()

    def summary(self) -> MoneySummary:
        """Return the state of the money."""
        self._turn_day()
        callers = sorted({*self._books.charged.callers, *self._held.callers} - {""})
        return summarise(
            self._books,
            caps=self.caps,
            levels=tuple(dict.fromkeys(level for caller in ("", *callers) for level in self._levels(caller))),
            baseline=self.baseline,
            prices_name=self.prices.name,
            prices_captured=self.prices.captured,
            warning=self._keeper.warning,
        )

    async def close(self) -> None:
        """Write everything; the marks are then equal to the counts."""
        self._coming = None
        close_marks(self._books, self._held)
        await self._keeper.close()

    def _turn_day(self) -> None:
        number = int(self._clock() // DAY_SECONDS)
        # A clock that is set back over midnight does not open yesterday's budget again.
        if self._day_number - 1 <= number <= self._day_number:
            return
        self._day_number = number
        self._date = _EPOCH + timedelta(days=number)
        # Marks of the day before allow nothing today.
        self._coming = None
        self._books.turn_day(self._date.isoformat())

    def _bound(self, models: tuple[str, ...], worst: Usage | None) -> Decimal | None:
        """Return the most that a call may cost; None when nobody said so. 0 when nobody caps money."""
        if not self.caps.any_usd:
            return ZERO
        usage = worst or Usage()
        bounds: list[Decimal] = []
        for model in models or ("",):
            usd = self.prices.price(model, usage, self._date)
            if usd is None:
                raise BudgetError(
                    f"a cap in USD is set and could not be kept: {self.prices.explain(model, usage, self._date)}"
                )
            bounds.append(usd)
        return max(bounds) if worst is not None else None

    def _check(self, purpose: Purpose, caller: str, amount: Decimal | None) -> None:
        if self.left(purpose) == 0:
            raise BudgetError(f"the budget of teacher calls for {purpose!r} is spent ({self.calls} calls in all)")
        for level in self._levels(caller):
            check_level(level, amount)

    def _levels(self, caller: str) -> tuple[Level, ...]:
        caps, charged, held = self.caps, self._books.charged, self._held
        levels = []
        if caps.usd_total is not None:
            levels.append(Level("usd_total", caps.usd_total, charged.total, held.total))
        if caps.usd_per_day is not None:
            levels.append(Level("usd_per_day", caps.usd_per_day, charged.day, held.total))
        if caps.usd_per_caller is not None and caller:
            used, held_usd = charged.callers.get(caller, ZERO), held.callers.get(caller, ZERO)
            levels.append(Level("usd_per_caller_per_day", caps.usd_per_caller, used, held_usd, caller))
        return tuple(levels)

    def _count(self, hold: Hold, sign: int) -> None:
        self._books.spent[hold.purpose].calls += sign
        self._books.today.calls = max(0, self._books.today.calls + sign)
        if sign < 0:
            self._close(hold)
        elif hold.amount:
            self._held.add(hold.caller, hold.amount)

    def _close(self, hold: Hold | None) -> Decimal:
        """Take a hold off; returns what it held, 0 when it was closed before."""
        if hold is None or hold.closed:
            return ZERO
        hold.closed = True
        if hold.amount:
            self._held.add(hold.caller, -hold.amount)
            if not self._held.callers.get(hold.caller):
                self._held.callers.pop(hold.caller, None)
        return hold.amount

    def _secure(self, hold: Hold) -> None:
        """Make sure that the file allows what is counted and held now; raises as `Keeper.save`."""
        books = self._books
        if not is_beyond(books, self.caps, self._held, purpose=hold.purpose, caller=hold.caller):
            return
        before = (books.mark_calls, books.mark_usd)
        marks = plan_marks(books, self.caps, self._held, purpose=hold.purpose, amount=hold.amount)
        # An image with the marks that were on their way may never be written now: ours is newer.
        self._coming = None
        books.mark_calls, books.mark_usd = marks.calls, marks.usd
        try:
            self._keeper.save()
        except ShammahError:
            books.mark_calls, books.mark_usd = before
            raise

    def _reach_ahead(self, hold: Hold) -> None:
        """Move the marks on off the event loop, when half of what they allowed ahead is used."""
        caps, books = self.caps, self._books
        if self._coming is not None or not is_near(
            books, caps, self._held, purpose=hold.purpose, caller=hold.caller, amount=hold.amount
        ):
            return
        marks = plan_marks(books, caps, self._held, purpose=hold.purpose, amount=hold.amount)

        def arrive(written: bool) -> None:
            if self._coming is not marks:
                return
            self._coming = None
            if written:
                books.mark_calls, books.mark_usd = marks.calls, marks.usd

        self._coming = marks
        if not self._keeper.save_behind(arrive):
            self._coming = None

    def _render(self, file: LedgerFile) -> bytes:
        books = self._books
        lower_marks(books, self.caps, self._held)
        if self._coming is not None:
            books = replace(books, mark_calls=self._coming.calls, mark_usd=self._coming.usd)
        return file.render(books)

    def _note_unknown(self, model: str) -> None:
        models = self._books.unknown_models
        name = model[:200]
        if name not in models and len(models) >= _MAX_UNKNOWN:
            name = _OTHERS
        models[name] = models.get(name, 0) + 1
