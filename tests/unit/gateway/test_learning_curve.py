from __future__ import annotations

import pytest
from shammah_gateway.learning_curve import (
    CategoryState,
    expected_accuracy,
    expected_gain,
    learnability,
    recommended_rows,
)


def state(accuracy: float, *, first: float = 0.0, rows: int = 0, share: float = 0.25) -> CategoryState:
    return CategoryState(accuracy=accuracy, first=first, trained_rows=rows, share=share)


def test_nothing_is_known_before_anything_was_taught() -> None:
    assert learnability(state(0.1)) == 0.5


def test_rows_that_helped_raise_learnability_and_rows_that_did_not_lower_it() -> None:
    assert learnability(state(0.8, rows=100)) > 0.85
    assert learnability(state(0.05, rows=400)) < 0.1


def test_failure_alone_is_no_reason_to_teach() -> None:
    hopeless, promising = state(0.0, rows=400), state(0.5, rows=50)
    assert expected_gain(promising) > 3 * expected_gain(hopeless)
    assert recommended_rows(hopeless) == 0


def test_a_perfect_category_gains_nothing() -> None:
    assert expected_gain(state(1.0, rows=100)) == 0.0
    assert recommended_rows(state(1.0, rows=100)) == 0


def test_more_rows_never_expect_less_and_never_more_than_perfect() -> None:
    values = [expected_accuracy(state(0.3, rows=20), rows) for rows in range(0, 1000, 50)]
    assert values == sorted(values) and values[0] == pytest.approx(0.3) and values[-1] <= 1.0


def test_what_is_asked_more_often_gains_more() -> None:
    assert expected_gain(state(0.2, share=0.6)) == pytest.approx(3 * expected_gain(state(0.2, share=0.2)))


def test_recommendations_are_steps_of_25_up_to_100() -> None:
    assert recommended_rows(state(0.0, share=0.5)) == 100
    assert recommended_rows(state(0.9, rows=100, share=0.05)) in (0, 25)
