from __future__ import annotations

import asyncio

import pytest
from shammah_chassis.errors import TeacherAuthError, TeacherError, TeacherRefusedError, TeacherTimeoutError
from shammah_gateway.teachers.breaker import BreakerLimits
from shammah_gateway.teachers.faults import AttemptError, Fault
from shammah_gateway.teachers.retry import RetryPolicy
from support.guards import Clock, make_guard

DOWN = Fault("overloaded", status=529, retry=True)


class Script:
    """An attempt that fails by each of `steps`, then answers."""

    def __init__(self, *steps: Exception) -> None:
        self.steps = list(steps)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.steps:
            raise self.steps.pop(0)
        return "answer"


async def test_it_tries_until_the_budget_of_attempts_is_spent() -> None:
    clock = Clock()
    guard = make_guard(clock, policy=RetryPolicy(attempts=3))
    script = Script(*[AttemptError(DOWN)] * 3)
    with pytest.raises(TeacherError):
        await guard.run(script)
    assert (script.calls, clock.slept) == (3, [0.5, 1.0])
    guard = make_guard(clock, policy=RetryPolicy(attempts=3))
    assert await guard.run(Script(*[AttemptError(DOWN)] * 2)) == "answer"


async def test_it_does_not_sleep_past_the_deadline() -> None:
    clock = Clock()
    guard = make_guard(clock, policy=RetryPolicy(attempts=9), seconds=2.0)
    script = Script(*[AttemptError(DOWN)] * 9)
    with pytest.raises(TeacherError):
        await guard.run(script)
    # 0.5 + 1.0 leave 0.5 s: less than the next pause.
    assert clock.slept == [0.5, 1.0]


async def test_a_callers_own_patience_is_kept_when_it_is_shorter() -> None:
    clock = Clock()
    guard = make_guard(clock, seconds=20.0)
    with pytest.raises(TeacherError):
        await guard.run(Script(AttemptError(DOWN)), seconds=0.4)
    assert clock.slept == []


async def test_an_answer_that_is_none_is_neither_retried_nor_counted() -> None:
    clock = Clock()
    guard = make_guard(clock, limits=BreakerLimits(failures=1))
    script = Script(TeacherRefusedError("no"))
    with pytest.raises(TeacherRefusedError):
        await guard.run(script)
    assert (script.calls, guard.breaker.state) == (1, "closed")


async def test_a_call_that_takes_too_long_counts_as_a_failure() -> None:
    guard = make_guard(Clock(), seconds=0.05, limits=BreakerLimits(failures=1))

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(TeacherTimeoutError, match="within"):
        await guard.run(hang)
    assert guard.breaker.state == "open"


async def test_a_caller_that_leaves_during_the_trial_makes_room_for_the_next() -> None:
    clock = Clock()
    guard = make_guard(clock, limits=BreakerLimits(failures=1, open_seconds=10), policy=RetryPolicy(attempts=1))
    with pytest.raises(TeacherError):
        await guard.run(Script(AttemptError(DOWN)))
    clock.now += 10
    begun = asyncio.Event()

    async def hang() -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    trial = asyncio.create_task(guard.run(hang))
    await begun.wait()
    with pytest.raises(TeacherError, match="one call is tried"):
        await guard.run(Script())
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert await guard.run(Script()) == "answer"


async def test_retries_stop_when_the_breaker_opens_between() -> None:
    guard = make_guard(Clock(), limits=BreakerLimits(failures=2), policy=RetryPolicy(attempts=5))
    script = Script(*[AttemptError(DOWN)] * 5)
    with pytest.raises(TeacherError, match="2 failures in a row") as caught:
        await guard.run(script)
    assert script.calls == 2
    assert caught.value.retry_after_seconds == pytest.approx(15, abs=1)


async def test_left_alone_for_a_wrong_key_is_still_a_wrong_key() -> None:
    guard = make_guard(Clock(), limits=BreakerLimits(failures=1))
    with pytest.raises(TeacherAuthError):
        await guard.run(Script(AttemptError(Fault("auth", status=401))))
    with pytest.raises(TeacherAuthError, match="left alone"):
        await guard.run(Script())
