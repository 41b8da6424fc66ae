"""Which quality thresholds to test on the exam, and from which one on: decided on dev rows alone.

Learn-then-Test allows any order that does not look at the exam's labels or scores, and several starts that share the
level (algorithm 1 of Angelopoulos et al. 2021). This module knows of exam rows only how many there will be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError

from shammah_trainer.intervals import binomial_cdf, rows_needed

FEW_ROWS = 100
"""Dev rows under which they don't tell well where to start."""
_STARTS = 2
_BORNE = 2  # errors on the exam that the strictest start should bear
_NEAR_BEST = 0.05  # a stricter start is taken when its chance to pass is this close to the best one


def order_thresholds(
    scores: Sequence[float] | NDArray[np.float64],
    goods: Sequence[bool] | NDArray[np.bool_],
    at_most: int = 16,
    *,
    exam_rows: int | None = None,
    alpha: float = 0.05,
    level: float = 0.05,
) -> list[float]:
    """At most `at_most` thresholds from strict to lax; a row is accepted when score >= threshold.

    `scores` and `goods` are the dev rows that passed the prefilter. The grid is spread evenly over the accepted
    counts. A fixed sequence stops at its first failure, so thresholds too strict to gather evidence must not come
    first: given `exam_rows` (expected exam rows that pass the prefilter) the list starts at the strictest threshold
    whose chance to pass P(Bin(n, alpha) <= errors) <= level, extrapolated from dev, is within .05 of the best.
    Empty without dev rows. Raises InvalidInputError for NaN or infinite scores, unequal lengths or at_most < 1.
    """
    values = np.asarray(scores, dtype=np.float64)
    good = np.asarray(goods, dtype=np.bool_)
    if values.shape != good.shape or values.ndim != 1:
        raise InvalidInputError(f"need as many scores as labels, got {len(values)} and {len(good)}")
    if at_most < 1:
        raise InvalidInputError(f"at_most must be 1 or more, got {at_most}")
    if not bool(np.all(np.isfinite(values))):
        raise InvalidInputError("a dev score is not a finite number")
    if len(values) == 0:
        return []
    distinct = np.unique(values)[::-1]
    grid = _spread(values, distinct, at_most)
    if exam_rows is None:
        return [float(value) for value in grid]
    chances = [_chance_to_pass(values, good, float(t), exam_rows=exam_rows, alpha=alpha, level=level) for t in grid]
    start = next(i for i, chance in enumerate(chances) if chance >= max(chances) - _NEAR_BEST)
    if max(chances) <= _NEAR_BEST:
        start = int(np.argmax(chances))
    return [float(value) for value in grid[start:]]


def choose_orders(
    scores: Sequence[float] | NDArray[np.float64],
    goods: Sequence[bool] | NDArray[np.bool_],
    *,
    exam_rows: int,
    alpha: float,
    level: float,
) -> list[list[float]]:
    """Return the orders to test, each at `level` divided by their number: one where dev rows are many.

    Under `FEW_ROWS` the start of `order_thresholds` is little more than a guess: where it is too lax, the first test
    fails for errors that a stricter one leaves out. So another order starts at the strictest threshold that leaves
    enough exam rows to bear `_BORNE` errors, where there is one: a small exam has no level to share. In simulations
    (scores that rank like ours, 12 dev and 240 exam rows, one answer in five bad, alpha .1) that certifies 89 of 100
    categories, the one order alone 59. Raises as `order_thresholds`.
    """
    likely = order_thresholds(scores, goods, exam_rows=exam_rows, alpha=alpha, level=level)
    if not likely or len(scores) >= FEW_ROWS:
        return [likely] if likely else []
    values = np.asarray(scores, dtype=np.float64)
    grid = order_thresholds(values, goods)
    enough = rows_needed(alpha, level / _STARTS, _BORNE)
    strict = next((t for t in grid if exam_rows * float((values >= t).mean()) >= enough), likely[0])
    if strict <= likely[0]:
        return [likely]
    return [[threshold for threshold in grid if threshold <= strict], likely]


def _spread(values: NDArray[np.float64], distinct: NDArray[np.float64], at_most: int) -> NDArray[np.float64]:
    """Thresholds whose accepted counts are spread evenly, the laxest (accept all) always among them."""
    if len(distinct) <= at_most:
        return distinct
    ranks = np.ceil(np.arange(1, at_most + 1) * len(values) / at_most).astype(int) - 1
    return np.unique(np.sort(values)[::-1][ranks])[::-1]


def _chance_to_pass(
    values: NDArray[np.float64],
    good: NDArray[np.bool_],
    threshold: float,
    *,
    exam_rows: int,
    alpha: float,
    level: float,
) -> float:
    """P(the exam certifies this threshold) if the exam is like dev; the error rate gets half an error more."""
    accepted = values >= threshold
    count = int(accepted.sum())
    rate = (int((accepted & ~good).sum()) + 0.5) / (count + 1.0)
    expected = round(exam_rows * count / len(values))
    allowed = -1
    while allowed < expected and binomial_cdf(allowed + 1, expected, alpha) <= level:
        allowed += 1
    return binomial_cdf(allowed, expected, rate)
