from __future__ import annotations

from typing import Any

import pytest
from shammah_gateway.teachers.faults import Fault
from shammah_gateway.teachers.retry import RetryPolicy

POLICY = RetryPolicy(attempts=4, seconds=5.0, first_pause_seconds=0.5, max_pause_seconds=2.0)


def pause(
    policy: RetryPolicy = POLICY, *, retry: bool = True, after: float | None = None, **given: Any
) -> float | None:
    fault = Fault("server", retry=retry, retry_after_seconds=after)
    return policy.find_pause(fault, **{"tried": 1, "paused": 0.0, "left": 60.0, "jitter": 1.0, **given})


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause(tried=tried) for tried in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause(RetryPolicy(attempts=9), tried=8) == 2.0


def test_jitter_takes_off_up_to_half() -> None:
    assert pause(jitter=0.0) == 0.25
    assert pause(jitter=0.5) == 0.375


def test_the_attempts_are_counted() -> None:
    assert pause(tried=4) is None
    assert pause(RetryPolicy(attempts=1)) is None


def test_a_fault_that_will_not_pass_is_not_retried() -> None:
    assert pause(retry=False) is None


@pytest.mark.parametrize(("asked", "expected"), [(0.1, 0.5), (1.2, 1.2), (300.0, 2.0)])
def test_a_retry_after_is_kept_up_to_our_longest_pause(asked: float, expected: float) -> None:
    assert pause(after=asked) == expected


def test_a_pause_that_would_not_end_before_the_deadline_is_not_begun() -> None:
    assert pause(left=0.4) is None
    assert pause(left=0.5) is None
    assert pause(after=300.0, left=1.9) is None
    assert pause(after=300.0, left=2.1) == 2.0


def test_all_pauses_together_are_bounded() -> None:
    assert pause(paused=4.4) == 0.5
    assert pause(paused=4.6) is None


def test_with_another_teacher_behind_it_a_long_wait_is_not_waited_for_at_all() -> None:
    hurried = RetryPolicy(skip_long_waits=True)
    assert pause(hurried, after=300.0) is None
    assert pause(hurried, after=1.0) == 1.0
