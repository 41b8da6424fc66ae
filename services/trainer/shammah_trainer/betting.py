"""A betting test of "risk > alpha" for accepted answers that were sampled with unequal probabilities.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B 2023): bet against the null
hypothesis; under it the capital is a supermartingale that starts at 1, so P(capital >= 1 / p) <= p (Markov).
It does not know thresholds or categories.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError

_BETS = 16  # constant bets, equally spaced; the mean over them costs at most log(16) of log-capital


def log_capital(errors: NDArray[np.bool_], weights: NDArray[np.float64], *, alpha: float, max_weight: float) -> float:
    """Natural log of the capital won against "weighted risk >= alpha" by the n accepted rows given.

    Row i has weight w_i = 1 / propensity. Its payoff is Z_i = w_i (error_i - alpha), whose mean is >= 0 exactly when
    the risk among accepted answers is >= alpha. Capital = mean over bets of prod(1 - bet * Z_i), with constant bets
    up to 1 / ((1 - alpha) * max_weight), so no factor is negative: the paper's diversified Kelly bet, one-sided.
    The result does not depend on the order of the rows.

    `max_weight` is the largest weight that the sampling can give, fixed beforehand. A heavier row would void the
    proof, so it raises InvalidInputError, and so does a weight that is not positive.
    """
    if len(errors) == 0:
        return 0.0
    if not bool(np.all((weights > 0.0) & (weights <= max_weight))):
        raise InvalidInputError(
            f"weights must lie in (0, {max_weight}] (1 / smallest propensity), got "
            f"{float(np.min(weights))} to {float(np.max(weights))}"
        )
    bets = np.arange(1, _BETS + 1) / (_BETS * (1.0 - alpha) * max_weight)
    payoffs = weights * (errors.astype(np.float64) - alpha)
    with np.errstate(divide="ignore"):  # the boldest bet may lose everything: log 0
        logs = np.log(np.maximum(1.0 - np.outer(bets, payoffs), 0.0)).sum(axis=1)
    top = float(np.max(logs))
    if math.isinf(top):
        return top
    return top + math.log(float(np.mean(np.exp(logs - top))))


def betting_p_value(
    errors: NDArray[np.bool_], weights: NDArray[np.float64], *, alpha: float, max_weight: float
) -> float:
    """p-value of "weighted risk >= alpha": 1 / capital, at most 1 (see `log_capital`)."""
    won = log_capital(errors, weights, alpha=alpha, max_weight=max_weight)
    return math.exp(-won) if won > 0.0 else 1.0
