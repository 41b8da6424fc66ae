"""Exact confidence intervals of a proportion. It knows nothing of what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable

# Halvings of [0, 1]: far below any digit that is shown.
_STEPS = 50


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a success probability (Clopper and Pearson 1934); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _solve(lambda p: 1.0 - binomial_cdf(successes - 1, trials, p) - tail)
    high = 1.0 if successes == trials else _solve(lambda p: tail - binomial_cdf(successes, trials, p))
    return low, high


def binomial_cdf(most: int, trials: int, probability: float) -> float:
    """Return P(Bin(trials, probability) <= most)."""
    if probability <= 0.0:
        return 1.0
    if probability >= 1.0:
        return 1.0 if most >= trials else 0.0
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(probability)
        + (trials - k) * math.log1p(-probability)
        for k in range(most + 1)
    )
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _solve(rising: Callable[[float], float]) -> float:
    """Return the zero in [0, 1] of a function that rises."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0
