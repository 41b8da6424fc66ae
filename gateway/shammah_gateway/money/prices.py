"""What a call costs: a dated table of prices by model. It books nothing.

A price that is not known is None, never 0: an unknown model, a component without a price, or something billed beside
tokens. The shipped table is `prices.toml`; a user's file replaces the models that it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

from shammah_gateway.money.rates import COMPONENTS, RateFile, Rates, read_rates
from shammah_gateway.money.usage import Usage

SHIPPED = Path(__file__).with_name("prices.toml")
OVERRIDE_SETTING = "SHAMMAH_GATEWAY_PRICES_FILE"
# "claude-haiku-4-5-20251001" and "claude-haiku-4-5-latest" have the price of "claude-haiku-4-5".
_SUFFIX = re.compile(r"(-\d{8}|@\d{8}|-latest)$")
# Dividing by a million, exactly.
_PER_MILLION = -6
# Model names come from callers: the cache of looked-up rows must not grow with them.
_MAX_CACHED = 256


class PriceTable:
    """Prices of models; `override` is a user's file over the shipped one."""

    def __init__(self, shipped: RateFile, override: RateFile | None = None, *, name: str = "prices.toml") -> None:
        self.name = name
        self.captured = (override.captured if override else None) or shipped.captured
        self._models: Mapping[str, tuple[Rates, ...]] = {**shipped.models, **(override.models if override else {})}
        factor = (override.batch_factor if override else None) or shipped.batch_factor
        self._batch_factor = factor if factor is not None else Decimal(1)
        self._rows: dict[tuple[str, date], tuple[Rates, ...]] = {}

    def price(self, model: str, usage: Usage, day: date) -> Decimal | None:
        """Return the USD of a call on a day (UTC); None when it is not known (`explain` says why)."""
        row = self._find_row(model, usage.prompt_tokens, day)
        if row is None or usage.unpriced:
            return None
        total = Decimal(0)
        for name in COMPONENTS:
            tokens = getattr(usage, name)
            if tokens:
                rate = getattr(row, name)
                if rate is None:
                    return None
                total += rate * tokens
        if usage.batch:
            total *= self._batch_factor
        return total.scaleb(_PER_MILLION)

    def explain(self, model: str, usage: Usage, day: date) -> str:
        """Say why the price of a call is not known, and what to do."""
        row = self._find_row(model, usage.prompt_tokens, day)
        if row is None:
            rows = self._models.get(_trim(model, self._models), ())
            what = f"the model {model!r} has no price" if model else "no model was named"
            if rows:
                what = f"the model {model!r} has no price on {day} for a prompt of {usage.prompt_tokens} tokens"
        elif usage.unpriced:
            what = f"a call of {model!r} was billed for {', '.join(usage.unpriced)}, which has no price"
        else:
            missing = [name for name in COMPONENTS if getattr(usage, name) and getattr(row, name) is None]
            what = f"the model {model!r} has no price for {', '.join(missing)}"
        return f"{what} in {self.name}; add it to a file of your own and name that in {OVERRIDE_SETTING}"

    def _find_row(self, model: str, prompt_tokens: int, day: date) -> Rates | None:
        rows = self._rows.get((model, day))
        if rows is None:
            rows = _pick_rows(self._models.get(_trim(model, self._models), ()), day)
            if len(self._rows) >= _MAX_CACHED:
                self._rows.clear()
            self._rows[model, day] = rows
        for row in rows:
            if row.prompt_up_to is None or prompt_tokens <= row.prompt_up_to:
                return row
        return None


def load_prices(override: Path | None = None) -> PriceTable:
    """Return the shipped prices, with a user's file over them. Blocking.

    Raises:
        InvalidInputError: the file can't be read or has another form.
    """
    shipped = read_rates(SHIPPED)
    if override is None:
        return PriceTable(shipped)
    return PriceTable(shipped, read_rates(override), name=f"{override} and prices.toml")


def _trim(model: str, known: Mapping[str, object]) -> str:
    """Return the name that a model's prices are under: its own, else without the date of a snapshot."""
    return model if model in known else _SUFFIX.sub("", model)


def _pick_rows(rows: tuple[Rates, ...], day: date) -> tuple[Rates, ...]:
    """Return the tiers that hold on a day, shortest prompts first; empty before the first day."""
    started = [row.effective_from for row in rows if row.effective_from <= day]
    if not started:
        return ()
    newest = max(started)
    tiers = [row for row in rows if row.effective_from == newest]
    return tuple(sorted(tiers, key=lambda row: (row.prompt_up_to is None, row.prompt_up_to or 0)))
