"""What more examples of a category would bring, as `analyze_model` says it: a fitted curve times the share of traffic.

The curve goes through what each kept release's exam found for the rows that it had been taught, and through the answers
tested now (`shammah_chassis.learning_curve`). It ranks categories; it promises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from shammah_chassis.learning_curve import Curve

STEP_ROWS = 25
MAX_ROWS = 100
# The next 25 rows must be able to raise the overall accuracy by this much to be worth their price.
WORTH = 0.002


@dataclass(frozen=True, slots=True)
class CategoryState:
    """What is known of a category: its curve, rows it was taught, its `share` of the traffic.

    The accuracy of the few rows tested now is one point of the curve, and no bound of what can be gained: 8 of 9 right
    say less than 150 of 230 in the champion's exam.
    """

    curve: Curve
    trained_rows: int
    share: float


def expected_gain(state: CategoryState, rows: int = MAX_ROWS) -> float:
    """Return the expected rise of the overall share of good local answers after `rows` more examples."""
    return state.share * state.curve.gain(state.trained_rows, rows)


def upper_gain(state: CategoryState, rows: int = MAX_ROWS) -> float:
    """Return the upper bound of that rise: large where little was tried, small where many rows brought nothing."""
    return state.share * state.curve.upper_gain(state.trained_rows, rows)


def recommended_rows(state: CategoryState) -> int:
    """Return how many examples are worth teaching: steps of 25, at most 100, until a step can't bring enough."""
    rows = 0
    while rows < MAX_ROWS and upper_gain(state, rows + STEP_ROWS) - upper_gain(state, rows) >= WORTH:
        rows += STEP_ROWS
    return rows
