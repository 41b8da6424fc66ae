"""A circuit breaker: a server that keeps failing is left alone for a while, then tried by one call.

closed -> open: so many failures in a row, or a share of failures in a window. open -> half-open: the time is over.
half-open: one call at a time; a success closes, a failure opens for twice as long. It knows no transport.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shammah_gateway.teachers.faults import Fault

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """When it opens and for how long, in calls and seconds.

    `share` of failures counts once `least_calls` ended within `window_seconds`. `max_open_seconds` bounds both the
    doubling and a `retry-after`.
    """

    failures: int = 5
    window_seconds: float = 60.0
    share: float = 0.5
    least_calls: int = 20
    open_seconds: float = 15.0
    max_open_seconds: float = 120.0


class Permit:
    """The leave to make one call. Exactly one of the three is to be called; the first one counts."""

    __slots__ = ("_breaker", "_round")

    def __init__(self, breaker: Breaker, number: int) -> None:
        self._breaker: Breaker | None = breaker
        self._round = number

    def succeed(self) -> None:
        """Report that the server did its work (a refusal is work too)."""
        if (breaker := self._take()) is not None:
            breaker._end(self._round, None)

    def fail(self, fault: Fault) -> None:
        """Report a fault; one of the request itself is the server doing its work."""
        if (breaker := self._take()) is not None:
            breaker._end(self._round, fault if fault.elsewhere else None)

    def drop(self) -> None:
        """Give the leave back: nobody knows how the call would have ended, as the caller went away."""
        if (breaker := self._take()) is not None:
            breaker._drop(self._round)

    def _take(self) -> Breaker | None:
        breaker, self._breaker = self._breaker, None
        return breaker


class Breaker:
    """The breaker of one server. `clock` gives seconds that never go back. Not for several threads."""

    def __init__(
        self, name: str, limits: BreakerLimits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._state: BreakerState = "closed"
        self._why = ""
        # Calls that ended in this window, and those of them that failed. Counters, as thousands end a second.
        self._window_start = clock()
        self._calls = 0
        self._failed = 0
        self._in_row = 0
        self._last: Fault | None = None
        self._trips = 0
        self._until = 0.0
        # A result belongs to the round in which its call began; one of an earlier round says nothing about now.
        self._round = 0
        self._probe_until = -math.inf

    @property
    def state(self) -> BreakerState:
        """The state now; `half_open` as soon as the next call would be let through as a trial."""
        return "half_open" if self._state == "open" and self._clock() >= self._until else self._state

    @property
    def last_fault(self) -> Fault | None:
        """The last fault since the last success; None when there was none."""
        return self._last

    @property
    def wait_seconds(self) -> float:
        """How long until a call is let through; 0 when one is now, as far as time decides it."""
        return max(0.0, self._until - self._clock()) if self._state == "open" else 0.0

    @property
    def reason(self) -> str:
        """Why it is not closed; "" when it is."""
        if self._state == "closed":
            return ""
        last = f"; the last fault: {self._last}" if self._last else ""
        when = f"next try in {math.ceil(self.wait_seconds)} s" if self.state == "open" else "one call is tried"
        return f"{self._why}{last}; {when}"

    def enter(self) -> Permit | None:
        """Return the leave for one call; None while the server is left alone."""
        now = self._clock()
        if self._state == "open" and now >= self._until:
            self._state = "half_open"
            self._round += 1
            self._probe_until = -math.inf
        if self._state == "closed":
            return Permit(self, self._round)
        if self._state == "half_open" and now >= self._probe_until:
            # A trial that is never reported may not keep the server away for ever.
            self._probe_until = now + self._limits.max_open_seconds
            return Permit(self, self._round)
        return None

    def _end(self, number: int, fault: Fault | None) -> None:
        if number != self._round:
            return
        if fault is None:
            self._count(failed=False)
            self._in_row, self._last = 0, None
            if self._state == "half_open":
                self._state, self._trips = "closed", 0
            return
        self._count(failed=True)
        self._in_row += 1
        self._last = fault
        if self._state == "half_open":
            self._open("the trial call failed", fault)
        elif self._in_row >= self._limits.failures:
            self._open(f"{self._in_row} failures in a row", fault)
        elif self._calls >= self._limits.least_calls and self._failed >= self._limits.share * self._calls:
            self._open(f"{self._failed} of {self._calls} calls failed within {self._limits.window_seconds:g} s", fault)

    def _drop(self, number: int) -> None:
        if number == self._round:
            self._probe_until = -math.inf

    def _count(self, *, failed: bool) -> None:
        now = self._clock()
        if now - self._window_start >= self._limits.window_seconds:
            self._clear_window(now)
        self._calls += 1
        self._failed += failed

    def _clear_window(self, now: float) -> None:
        self._window_start, self._calls, self._failed = now, 0, 0

    def _open(self, why: str, fault: Fault) -> None:
        seconds = max(self._limits.open_seconds * 2.0**self._trips, fault.retry_after_seconds or 0.0)
        self._trips = min(self._trips + 1, 30)  # bounded, so that the power is
        self._state, self._why = "open", why
        now = self._clock()
        self._until = now + min(seconds, self._limits.max_open_seconds)
        self._round += 1
        self._in_row = 0
        self._clear_window(now)
