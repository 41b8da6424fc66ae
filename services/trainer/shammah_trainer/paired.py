"""Exact tests and intervals for paired yes/no outcomes of two students on the same rows.

It knows gains (only the candidate is good), losses (only the champion is good) and n, no categories and no verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError

from shammah_trainer.intervals import binomial_cdf, lower_bound, upper_bound

_NUISANCE_ERROR = 1e-3  # Berger-Boos: chance that the true share of gains lies above the range searched
_NUISANCE_STEPS = 40  # shares of gains tried in that range; the p-value is smooth in them


def worse_p_value(gains: int, losses: int, n: int, *, tolerance: float) -> float:
    """p-value of "P(loss) - P(gain) <= tolerance": small when the candidate is worse by more than that.

    Exact unconditional test. Statistic: losses - gains - n * tolerance over its estimated standard deviation. At the
    border of the null hypothesis (gains, losses, ties) is trinomial with one unknown, the share of gains; the largest
    tail probability over a confidence range of that share is taken and the error of the range added (Berger and Boos
    1994). So the level holds for every n. `tolerance` is a share (3 points = .03).
    Raises InvalidInputError for impossible counts or a tolerance outside [0, 1).
    """
    _check(gains, losses, n)
    if not 0.0 <= tolerance < 1.0:
        raise InvalidInputError(f"tolerance must lie in [0, 1), got {tolerance}")
    if losses <= gains:
        return 1.0  # not even worse in this sample
    shares = _nuisance_shares(gains, n, tolerance)
    mean = n * (2.0 * float(shares[-1]) + tolerance)
    most = min(n, math.ceil(mean + 9.0 * math.sqrt(mean) + 20.0))  # beyond it lies under 1e-12 of the mass
    gain, loss = np.meshgrid(np.arange(most + 1.0), np.arange(most + 1.0))
    here = _statistic(np.array([float(gains)]), np.array([float(losses)]), n, tolerance)[0]
    extreme = (gain + loss <= n) & (_statistic(gain, loss, n, tolerance) >= here - 1e-12)
    gain, loss = gain[extreme], loss[extreme]
    tie = n - gain - loss
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1.0, n + 1.0)))))
    ways = log_factorial[n] - sum(log_factorial[part.astype(np.intp)] for part in (gain, loss, tie))
    tails = [
        float(np.exp(ways + _xlog(gain, g) + _xlog(loss, g + tolerance) + _xlog(tie, 1.0 - 2.0 * g - tolerance)).sum())
        for g in shares.tolist()
    ]
    return min(1.0, max(tails) + _NUISANCE_ERROR)


def rise_p_value(gains: int, losses: int) -> float:
    """One-sided exact McNemar test: p-value of "no more gains than losses to be expected"."""
    _check(gains, losses, gains + losses)
    return binomial_cdf(losses, gains + losses, 0.5)


def difference_interval(gains: int, losses: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of P(good by the candidate) - P(good by the champion): adjusted Wald for paired rows.

    Bonett and Price 2012: one gain and one loss are added, n + 2 rows. (-1, 1) without rows.
    """
    _check(gains, losses, n)
    if n == 0:
        return -1.0, 1.0
    gain, loss = (gains + 1) / (n + 2), (losses + 1) / (n + 2)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    half = z * math.sqrt((gain + loss - (gain - loss) ** 2) / (n + 2))
    return max(-1.0, gain - loss - half), min(1.0, gain - loss + half)


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses fall (Holm 1979): chance of any false rejection is at most `level`."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _nuisance_shares(gains: int, n: int, tolerance: float) -> NDArray[np.float64]:
    top = (1.0 - tolerance) / 2.0  # P(gain) + P(loss) may not exceed 1
    low = min(top, lower_bound(gains, n, _NUISANCE_ERROR / 2.0))
    high = min(top, upper_bound(gains, n, _NUISANCE_ERROR / 2.0))
    return np.linspace(low, high, _NUISANCE_STEPS)


def _statistic(gain: NDArray[np.float64], loss: NDArray[np.float64], n: int, tolerance: float) -> NDArray[np.float64]:
    """Studentised excess; the 1 keeps the deviation above 0 (any statistic is valid, this one is only sharper)."""
    excess = loss - gain
    spread = np.maximum(gain + loss - excess**2 / n, 0.0) + 1.0
    return np.asarray((excess - n * tolerance) / np.sqrt(spread))


def _xlog(count: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Count * log(share), where 0 * log(0) is 0."""
    if share > 0.0:
        return count * math.log(share)
    return np.where(count > 0.0, -np.inf, 0.0)


def _check(gains: int, losses: int, n: int) -> None:
    if gains < 0 or losses < 0 or gains + losses > n:
        raise InvalidInputError(f"need gains, losses >= 0 and gains + losses <= n, got {gains}, {losses}, {n}")
