"""What `analyze_model` expects of more examples."""

from __future__ import annotations

import pytest
from shammah_chassis.learning_curve import Curve, Point
from shammah_gateway.learning_curve import CategoryState, expected_gain, recommended_rows, upper_gain


def state(*points: tuple[int, float], share: float = 0.25) -> CategoryState:
    known = [Point(rows, 40 * value, 40) for rows, value in points]
    return CategoryState(Curve(known), points[-1][0] if points else 0, share)


def test_failure_alone_is_no_reason_to_teach() -> None:
    hopeless, promising = state((0, 0.0), (400, 0.0)), state((0, 0.1), (50, 0.5))
    assert expected_gain(promising) > 3 * expected_gain(hopeless)
    assert upper_gain(promising) > 3 * upper_gain(hopeless)
    assert recommended_rows(hopeless) == 0


def test_what_was_never_tried_is_worth_a_try() -> None:
    assert recommended_rows(state()) == 100


def test_a_perfect_category_gains_nothing() -> None:
    done = state((0, 0.9), (100, 1.0))
    assert expected_gain(done) < 0.003
    assert recommended_rows(done) == 0


def test_a_few_lucky_answers_do_not_outweigh_an_exam() -> None:
    exam = [Point(0, 0.0, 230), Point(40, 150, 230)]
    lucky, unlucky = (
        CategoryState(Curve([*exam, Point(40, good, 9)]), trained_rows=40, share=0.25) for good in (8.0, 4.0)
    )
    assert expected_gain(lucky) > 0.5 * expected_gain(unlucky) > 0


def test_more_rows_never_expect_less() -> None:
    learning = state((0, 0.0), (50, 0.3))
    values = [expected_gain(learning, rows) for rows in range(0, 1000, 50)]
    assert values == sorted(values) and values[0] == 0.0 and values[-1] <= 0.25


def test_what_is_asked_more_often_gains_more() -> None:
    often, rare = (state((0, 0.0), (50, 0.3), share=share) for share in (0.6, 0.2))
    assert expected_gain(often) == pytest.approx(3 * expected_gain(rare))


def test_the_upper_bound_is_never_below_the_expectation() -> None:
    learning = state((0, 0.0), (50, 0.3))
    assert upper_gain(learning) >= expected_gain(learning) > 0
