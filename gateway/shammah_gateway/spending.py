"""The ledger of teacher calls: how many, for what, how many tokens; with hard limits. Kept on disk.

A call is counted before it is made: after a crash the count may be one too high, never too low. It knows no prices.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from shammah_chassis.atomic import storage_errors
from shammah_chassis.errors import BudgetError, StorageFullError

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Spent:
    """Calls and tokens of one purpose."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Spending:
    """Counts teacher calls by purpose; `limits` bound a purpose, `total` all of them (None: no limit)."""

    def __init__(self, path: Path | None, *, total: int | None, limits: Mapping[str, int] | None = None) -> None:
        self._path = path
        self._total = total
        self._limits = dict(limits or {})
        self._spent = _load(path)

    @property
    def calls(self) -> int:
        """All calls so far."""
        return sum(entry.calls for entry in self._spent.values())

    def spent(self, purpose: str) -> Spent:
        """Return what one purpose has cost so far."""
        return self._spent.setdefault(purpose, Spent())

    def left(self, purpose: str) -> int | None:
        """How many calls are left for a purpose; None for no limit."""
        open_limits = []
        if self._total is not None:
            open_limits.append(self._total - self.calls)
        if purpose in self._limits:
            open_limits.append(self._limits[purpose] - self.spent(purpose).calls)
        return max(0, min(open_limits)) if open_limits else None

    def take(self, purpose: str) -> None:
        """Count one call.

        Raises:
            BudgetError: none is left.
            StorageFullError: there is a limit, and the count can't be kept.
        """
        if self.left(purpose) == 0:
            raise BudgetError(f"the budget of teacher calls for {purpose!r} is spent ({self.calls} calls in all)")
        limited = self.left(purpose) is not None
        self.spent(purpose).calls += 1
        try:
            self._save()
        except StorageFullError as error:
            if limited:
                # A budget that a restart would forget is no hard one.
                self.spent(purpose).calls -= 1
                raise
            _log.warning("%s", error.message)

    def add_tokens(self, purpose: str, input_tokens: int, output_tokens: int) -> None:
        """Add what a call was billed."""
        if input_tokens or output_tokens:
            entry = self.spent(purpose)
            entry.input_tokens += input_tokens
            entry.output_tokens += output_tokens
            with contextlib.suppress(StorageFullError):  # the answer is there and paid for
                self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        aside = self._path.with_suffix(".new")
        with storage_errors("the ledger of teacher calls"):
            aside.write_text(json.dumps({name: asdict(entry) for name, entry in self._spent.items()}), "utf-8")
            os.replace(aside, self._path)


def _load(path: Path | None) -> dict[str, Spent]:
    if path is None or not path.exists():
        return {}
    return {name: Spent(**entry) for name, entry in json.loads(path.read_text("utf-8")).items()}
