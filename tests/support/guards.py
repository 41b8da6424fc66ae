"""A clock that only moves when told, and guards of teachers that sleep on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from shammah_gateway.teachers.breaker import Breaker, BreakerLimits
from shammah_gateway.teachers.guard import Guard
from shammah_gateway.teachers.retry import RetryPolicy


@dataclass
class Clock:
    """Seconds that move by `sleep` or by hand; `slept` are the pauses."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def make_guard(
    clock: Clock,
    *,
    name: str = "anthropic",
    seconds: float = 20.0,
    policy: RetryPolicy | None = None,
    limits: BreakerLimits | None = None,
) -> Guard:
    """A guard on a clock of the test, without jitter."""
    return Guard(
        Breaker(name, limits, clock=clock),
        policy=policy or RetryPolicy(),
        seconds=seconds,
        sleep=clock.sleep,
        clock=clock,
        jitter=lambda: 1.0,
    )
