"""When a round starts by itself: enough new rows, or few that waited long; then a cool-down, longer after failures.

Pure counting over a clock; it knows neither ledger nor rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_LONGEST_BACKOFF_SECONDS = 3600.0
_LONGEST_SETTLING = 5.0


@dataclass(slots=True, kw_only=True)
class Triggers:
    """Decides by the number of new rows.

    `settle_seconds`: rows that still stream in are waited for this long, but where they never cease five times as long.
    """

    batch_size: int
    max_wait_seconds: float
    cooldown_seconds: float
    settle_seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic
    _waiting_since: float | None = field(default=None, init=False)
    _changed_at: float = field(default=0.0, init=False)
    _full_since: float | None = field(default=None, init=False)
    _rows: int = field(default=0, init=False)
    _not_before: float = field(default=0.0, init=False)
    _failures: int = field(default=0, init=False)

    def should_start(self, rows: int) -> bool:
        """Say whether a round should start now, `rows` new train rows being there."""
        now = self.clock()
        if rows != self._rows:
            self._rows, self._changed_at = rows, now
        if rows < self.batch_size:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if rows == 0:
            self._waiting_since = None
            return False
        if self._waiting_since is None:
            self._waiting_since = now
        if now < self._not_before:
            return False
        if now - self._waiting_since >= self.max_wait_seconds:
            return True
        if self._full_since is None:
            return False
        settled = now - self._changed_at >= self.settle_seconds
        return settled or now - self._full_since >= _LONGEST_SETTLING * self.settle_seconds

    def note_end(self, *, failed: bool) -> None:
        """Start the cool-down after a round; it doubles with each failure in a row, up to an hour."""
        self._failures = self._failures + 1 if failed else 0
        pause = self.cooldown_seconds * 2**self._failures
        self._not_before = self.clock() + min(pause, max(_LONGEST_BACKOFF_SECONDS, self.cooldown_seconds))
        self._waiting_since = None
