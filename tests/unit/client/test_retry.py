"""What is tried again, and after which pause."""

from __future__ import annotations

import pytest
from shammah_client.errors import (
    BudgetError,
    DeadlineError,
    InvalidInputError,
    OverloadedError,
    ShammahError,
    TeacherError,
    UnavailableError,
)
from shammah_client.retry import RetryPolicy

POLICY = RetryPolicy(attempts=3, first_pause=0.1, longest_pause=0.15)


def pause(error: ShammahError, *, attempt: int = 1, idempotent: bool = True, left: float = 10.0) -> float | None:
    return POLICY.pause_before_next(error, attempt=attempt, idempotent=idempotent, seconds_left=left)


def test_a_gateway_that_is_away_is_tried_again_only_where_a_repeat_is_harmless() -> None:
    first, second = pause(UnavailableError("x")), pause(UnavailableError("x"), attempt=2)
    assert first is not None and 0.075 <= first <= 0.125
    assert second is not None and 0.1125 <= second <= 0.1875
    assert pause(UnavailableError("x"), idempotent=False) is None


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_full_queue_is_tried_again_when_it_says_when(idempotent: bool) -> None:
    assert pause(OverloadedError("x", retry_after_seconds=0.7), idempotent=idempotent) == 0.7
    assert pause(OverloadedError("x"), idempotent=idempotent) is None


@pytest.mark.parametrize("kind", [BudgetError, DeadlineError, InvalidInputError, TeacherError, ShammahError])
def test_nothing_else_is_tried_again(kind: type[ShammahError]) -> None:
    assert pause(kind("x", retry_after_seconds=0.1)) is None


def test_attempts_end_and_the_deadline_holds() -> None:
    assert pause(UnavailableError("x"), attempt=3) is None
    assert pause(OverloadedError("x", retry_after_seconds=5.0), left=4.0) is None
    assert pause(UnavailableError("x"), left=0.01) is None
