"""When a failed call to a teacher is made again, and after what pause. It makes no call and does not sleep.

The SDKs' own retries are off: they sleep as long as a `retry-after` header says (300 s were seen), while a user waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from shammah_gateway.teachers.faults import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The budget of one answer: `attempts` calls in all, `seconds` of pauses in all, one pause at most `max_pause`.

    `skip_long_waits`: where the server asks for more than `max_pause_seconds`, do not try it again. This is for a
    teacher that has another one behind it; the last one is tried all the same, after our own longest pause.
    """

    attempts: int = 2
    seconds: float = 10.0
    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 2.0
    skip_long_waits: bool = False

    def find_pause(self, fault: Fault, *, tried: int, paused: float, left: float, jitter: float) -> float | None:
        """Return the seconds to pause before the next attempt; None for no more attempts.

        `tried`: attempts so far; `paused`: seconds paused so far; `left`: seconds until the deadline; `jitter` in
        0..1 spreads the callers over the upper half of our own pause. A `retry-after` is a lower bound, up to our
        longest pause. A pause that would not end before the deadline, or that the budget does not allow, is not begun.
        """
        if not fault.retry or tried >= self.attempts:
            return None
        asked = fault.retry_after_seconds or 0.0
        if self.skip_long_waits and asked > self.max_pause_seconds:
            return None
        own = self.first_pause_seconds * 2.0 ** (tried - 1) * (0.5 + 0.5 * jitter)
        pause = min(max(own, asked), self.max_pause_seconds)
        return pause if pause < left and paused + pause <= self.seconds else None
