"""Which quality thresholds to test on the exam, and from which one on: decided on dev rows alone.

Learn-then-Test allows any order that does not look at the exam's labels or scores, and several starts that share the
level (algorithm 1 of Angelopoulos et al. 2021). This module knows of exam rows only how many there will be.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError

from shammah_trainer.intervals import beta_binomial_cdf, binomial_cdf, rows_needed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FEW_ROWS = 100
"""Dev rows under which they don't tell well where to start."""
_STARTS = 2
_BORNE = 2  # errors on the exam that the strictest start should bear
_FINE = 96
# A stricter start is taken when its chance to pass is this close to the best one; few rows tell no finer difference.
_NEAR_BEST, _NEAR_BEST_OF_FEW = 0.01, 0.05
_SURE = 0.8  # of the best chance
_HOPELESS = 0.02  # laxer thresholds with less of a chance are not tested


def order_thresholds(
    scores: Sequence[float] | Floats,
    goods: Sequence[bool] | Bools,
    at_most: int = 16,
    *,
    exam_rows: int | None = None,
    alpha: float = 0.05,
    level: float = 0.05,
) -> list[float]:
    """At most `at_most` thresholds from strict to lax; a row is accepted when score >= threshold.

    `scores` and `goods` are the dev rows that passed the prefilter. The thresholds are spread evenly over the accepted
    counts. A fixed sequence stops at its first failure, so thresholds too strict to gather evidence must not come
    first: given `exam_rows` (expected exam rows that pass the prefilter) the list starts at the strictest threshold
    whose chance to pass is close to the best one. The chance is that of so few errors on the exam that
    P(Bin(n, alpha) <= errors) <= level, after the dev rows (beta-binomial). With `FEW_ROWS` or more it ends where that
    chance is gone, so that the thresholds between are closer together.
    Empty without dev rows. Raises InvalidInputError for NaN or infinite scores, unequal lengths or at_most < 1.
    """
    values, good = _check(scores, goods, at_most)
    if len(values) == 0:
        return []
    many = len(values) >= FEW_ROWS and exam_rows is not None
    grid = _spread(values, max(at_most, _FINE) if many else at_most)
    if exam_rows is None:
        return [float(value) for value in grid]
    chances = _find_chances(values, good, grid, exam_rows=exam_rows, alpha=alpha, level=level)
    near = _NEAR_BEST if many else _NEAR_BEST_OF_FEW
    best = float(chances.max())
    start = int(np.argmax(chances if best <= near else chances >= best - near))
    end = int(np.flatnonzero(chances >= min(_HOPELESS, best)).max()) if many else len(grid) - 1
    grid = grid[start : max(start, end) + 1]
    kept = np.unique(np.linspace(0, len(grid) - 1, min(at_most, len(grid))).round().astype(int))
    return [float(value) for value in grid[kept]]


def choose_orders(
    scores: Sequence[float] | Floats,
    goods: Sequence[bool] | Bools,
    *,
    exam_rows: int,
    alpha: float,
    level: float,
) -> list[list[float]]:
    """Return the orders to test, each at `level` divided by their number: one where dev rows are many.

    Under `FEW_ROWS` the start of `order_thresholds` is little more than a guess: where it is too lax, the first test
    fails for errors that a stricter one leaves out. So another order starts at the strictest threshold that leaves
    enough exam rows to bear `_BORNE` errors, where there is one: a small exam has no level to share. With 12 dev and
    240 exam rows drawn from real ones (alpha .1), a mean share of .62 is certified with both and .55 with one; with 80
    dev rows there is no difference. Raises as `order_thresholds`.
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


def count_sure(
    scores: Sequence[float] | Floats,
    goods: Sequence[bool] | Bools,
    order: Sequence[float],
    *,
    exam_rows: int,
    alpha: float,
    level: float,
) -> int:
    """Return how many thresholds of an order, from its start on, are about as likely to pass as the best of them.

    Raises as `order_thresholds`.
    """
    values, good = _check(scores, goods, 1)
    grid = np.asarray(order, dtype=np.float64)
    chances = _find_chances(values, good, grid, exam_rows=exam_rows, alpha=alpha, level=level)
    unlikely = np.flatnonzero(chances < _SURE * chances.max())
    return max(1, int(unlikely[0])) if len(unlikely) else len(grid)


def find_best_chance(
    scores: Sequence[float] | Floats, goods: Sequence[bool] | Bools, *, exam_rows: int, alpha: float, level: float
) -> float:
    """Return the chance of the threshold that is likeliest to pass; few dev rows leave much open, and rule out little.

    Raises as `order_thresholds`.
    """
    values, good = _check(scores, goods, 1)
    grid = _spread(values, _FINE)
    return float(_find_chances(values, good, grid, exam_rows=exam_rows, alpha=alpha, level=level).max())


def _check(scores: Sequence[float] | Floats, goods: Sequence[bool] | Bools, at_most: int) -> tuple[Floats, Bools]:
    values = np.asarray(scores, dtype=np.float64)
    good = np.asarray(goods, dtype=np.bool_)
    if values.shape != good.shape or values.ndim != 1:
        raise InvalidInputError(f"need as many scores as labels, got {len(values)} and {len(good)}")
    if at_most < 1:
        raise InvalidInputError(f"at_most must be 1 or more, got {at_most}")
    if not bool(np.all(np.isfinite(values))):
        raise InvalidInputError("a dev score is not a finite number")
    return values, good


def _spread(values: Floats, at_most: int) -> Floats:
    """Thresholds whose accepted counts are spread evenly, the laxest (accept all) always among them."""
    distinct = np.unique(values)[::-1]
    if len(distinct) <= at_most:
        return distinct
    ranks = np.ceil(np.arange(1, at_most + 1) * len(values) / at_most).astype(int) - 1
    return np.unique(np.sort(values)[::-1][ranks])[::-1]


def _find_chances(
    values: Floats, good: Bools, grid: Floats, *, exam_rows: int, alpha: float, level: float
) -> NDArray[np.float64]:
    """P(the exam certifies a threshold), for each of `grid`, if the exam is like dev: what dev leaves open counts."""
    chances = np.zeros(len(grid))
    for number, threshold in enumerate(grid):
        accepted = values >= threshold
        count = int(accepted.sum())
        errors = int((accepted & ~good).sum())
        expected = round(exam_rows * count / len(values))
        allowed = _count_allowed(expected, alpha, level)
        if allowed >= 0:
            chances[number] = beta_binomial_cdf(allowed, expected, errors + 0.5, count - errors + 0.5)
    return chances


def _count_allowed(rows: int, alpha: float, level: float) -> int:
    """Return the most errors among `rows` that still pass; -1 when none would."""
    return bisect.bisect_right(range(rows), level, key=lambda k: binomial_cdf(k, rows, alpha)) - 1
