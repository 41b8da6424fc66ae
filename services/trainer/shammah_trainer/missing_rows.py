"""How many further accepted exam rows would prove a promise if the error rate stayed as it is. Plain numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shammah_trainer.betting import log_capital
from shammah_trainer.intervals import rows_needed

NO_NUMBER_HELPS = -1  # when the error rate itself is too close to alpha or above it
_MOST_ERRORS = 20_000  # beyond this many errors no exam of ours will ever reach the bound


def count_missing(errors: int, accepted: int, *, alpha: float, level: float) -> int:
    """Return the smallest m - accepted such that P(Bin(m, alpha) <= k) <= level with k >= m * errors / accepted.

    So the error rate of the m rows is rounded up. Fewest rows for k errors is rows_needed(alpha, level, k), which
    grows slower than k * accepted / errors exactly if the rate is below alpha; the first such k >= errors is bisected.
    """
    if errors == 0:
        return max(0, rows_needed(alpha, level) - accepted)
    if errors >= alpha * accepted:
        return NO_NUMBER_HELPS

    def enough(k: int) -> bool:
        return rows_needed(alpha, level, k) * errors <= k * accepted

    if enough(errors):
        return max(0, rows_needed(alpha, level, errors) - accepted)
    low, high = errors, 2 * errors
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_ERRORS:
            return NO_NUMBER_HELPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return rows_needed(alpha, level, high) - accepted


def count_missing_weighted(
    bad: NDArray[np.bool_], weights: NDArray[np.float64], *, alpha: float, level: float, max_weight: float
) -> int:
    """Return n * (log(1 / level) / log capital - 1) of n rows: the log-capital is taken to go on growing evenly."""
    won = log_capital(bad, weights, alpha=alpha, max_weight=max_weight)
    if won <= 0.0:
        return NO_NUMBER_HELPS
    return max(0, math.ceil(len(bad) * (math.log(1.0 / level) / won - 1.0)))
