"""A simple model of what more examples of a category would bring. It ranks categories; it promises nothing.

The gap to perfect closes exponentially: after m more rows on top of n trained ones
    accuracy(m) = a + (1 - a) * L * (1 - 2^(-m / h)),  h = max(HALF_LIFE, n)
so that each doubling of the rows closes the same share of the gap (a power law, seen locally), and L in [0, 1] is how
learnable the category is for this student: 1/2 before anything is known, drawn to what its trained rows have shown
(closed gap over the gap that n rows should have closed). A category that got rows and did not improve gets a low L and
so a low gain: failure alone is no reason to teach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Rows after which a learnable category of short answers has closed half of its gap (notes: .50 -> .91 after 160).
HALF_LIFE = 50.0
PRIOR_LEARNABILITY = 0.5
# How many trained rows weigh as much as the prior.
PRIOR_ROWS = 10.0
STEP_ROWS = 25
MAX_ROWS = 100
# The next 25 rows must raise the overall accuracy by at least this much to be worth their price.
WORTH = 0.002


@dataclass(frozen=True, slots=True)
class CategoryState:
    """What is known of a category: accuracies 0 to 1, `share` of the traffic, `first` the accuracy before teaching."""

    accuracy: float
    first: float
    trained_rows: int
    share: float


def learnability(state: CategoryState) -> float:
    """Return L: the prior and the evidence of the trained rows, weighted by rows."""
    gap = 1.0 - state.first
    closed = max(0.0, state.accuracy - state.first) / gap if gap > 0 else 1.0
    expected = 1.0 - math.pow(2.0, -state.trained_rows / HALF_LIFE)
    seen = min(1.0, closed / expected) if expected > 0 else 0.0
    rows = float(state.trained_rows)
    return (PRIOR_ROWS * PRIOR_LEARNABILITY + rows * seen) / (PRIOR_ROWS + rows)


def expected_accuracy(state: CategoryState, rows: int) -> float:
    """Return the expected accuracy of the category after `rows` more examples."""
    half_life = max(HALF_LIFE, float(state.trained_rows))
    return state.accuracy + (1.0 - state.accuracy) * learnability(state) * (1.0 - math.pow(2.0, -rows / half_life))


def expected_gain(state: CategoryState, rows: int = MAX_ROWS) -> float:
    """Return the expected rise of the overall share of good local answers after `rows` more examples."""
    return state.share * (expected_accuracy(state, rows) - state.accuracy)


def recommended_rows(state: CategoryState) -> int:
    """Return how many examples are worth teaching: steps of 25, at most 100, until the next step brings too little."""
    rows = 0
    while rows < MAX_ROWS and expected_gain(state, rows + STEP_ROWS) - expected_gain(state, rows) >= WORTH:
        rows += STEP_ROWS
    return rows
