"""When a failed call is tried again, and after which pause. Pure: it neither sleeps nor calls."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shammah_client.errors import OverloadedError, ShammahError, UnavailableError

JITTER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently; seconds. `attempts` counts the first try: 1 means never again."""

    attempts: int = 3
    first_pause: float = 0.1
    longest_pause: float = 2.0

    def pause_before_next(
        self, error: ShammahError, *, attempt: int, idempotent: bool, seconds_left: float
    ) -> float | None:
        """Return the pause after the failed try number `attempt` (from 1), or None when it is the last.

        A full queue that names a pause has done nothing, so any call may come again. A gateway that is away may have
        begun: only idempotent calls come again. A pause that the deadline does not allow is not begun.
        """
        if attempt >= self.attempts:
            return None
        if isinstance(error, OverloadedError) and error.retry_after_seconds is not None:
            pause = error.retry_after_seconds
        elif isinstance(error, UnavailableError) and idempotent:
            backoff = min(self.first_pause * 2 ** (attempt - 1), self.longest_pause)
            pause = error.retry_after_seconds or backoff * random.uniform(1 - JITTER, 1 + JITTER)
        else:
            return None
        return pause if pause < seconds_left else None
