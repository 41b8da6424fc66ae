"""Exact binomial tails, Clopper-Pearson intervals and the rows that a promise needs.

Plain numbers in and out. It does not know what a success is, nor which test uses it.
"""

from __future__ import annotations

import math
from functools import lru_cache

from shammah_chassis.errors import InvalidInputError

_NEGLIGIBLE = 1e-18  # a term this much smaller than the sum no longer changes a double
_BISECTIONS = 60  # halves [0, 1] down to 1e-18
_MOST_ROWS = 10_000_000  # beyond this, "so many rows" is no advice any more


@lru_cache(maxsize=65_536)
def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p), exact to about 1e-10 relative in the lower tail.

    The sum starts at the term nearest the mean and walks outwards by the ratio of neighbouring terms, so it never
    overflows and needs about sqrt(n) steps. Raises InvalidInputError for n < 0 or p outside [0, 1].
    """
    if n < 0 or not 0.0 <= p <= 1.0:
        raise InvalidInputError(f"binomial needs n >= 0 and 0 <= p <= 1, got n={n} and p={p}")
    if k < 0:
        return 0.0
    if k >= n or p == 0.0:
        return 1.0
    if p == 1.0:
        return 0.0
    if k <= n * p:
        return min(1.0, _lower_tail(k, n, p))
    return max(0.0, 1.0 - _lower_tail(n - k - 1, n, 1.0 - p))


def beta_binomial_cdf(k: int, n: int, a: float, b: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p) with p ~ Beta(a, b): counts still to come, after a - 1/2 and b - 1/2 were seen.

    With Jeffreys' prior. Sums k + 1 terms, so it is for small k. Raises InvalidInputError for n < 0 and for a or b not
    above 0.
    """
    if n < 0 or a <= 0.0 or b <= 0.0:
        raise InvalidInputError(f"beta-binomial needs n >= 0 and a, b > 0, got n={n}, a={a}, b={b}")
    if k >= n:
        return 1.0
    fixed = math.lgamma(n + 1) - math.lgamma(n + a + b) - math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b)
    terms = (
        fixed - math.lgamma(i + 1) - math.lgamma(n - i + 1) + math.lgamma(i + a) + math.lgamma(n - i + b)
        for i in range(k + 1)
    )
    return min(1.0, sum(math.exp(term) for term in terms))


def interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval (1934) of a share: two-sided, coverage at least `level`.

    With n = 0 nothing is known: (0, 1). Raises InvalidInputError for impossible counts or a level outside (0, 1).
    """
    _check_counts(successes, n)
    _check_share("level", level)
    if n == 0:
        return 0.0, 1.0
    tail = (1.0 - level) / 2.0
    return lower_bound(successes, n, tail), upper_bound(successes, n, tail)


def upper_bound(successes: int, n: int, error: float) -> float:
    """Exact one-sided upper bound of a share; it is too low with probability at most `error`."""
    _check_counts(successes, n)
    _check_share("error", error)
    if successes == n:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if binomial_cdf(successes, n, middle) > error:
            low = middle
        else:
            high = middle
    return high


def lower_bound(successes: int, n: int, error: float) -> float:
    """Exact one-sided lower bound of a share; it is too high with probability at most `error`."""
    return 1.0 - upper_bound(n - successes, n, error)


def rows_needed(alpha: float, delta: float, errors_allowed: int = 0) -> int:
    """Fewest rows n with P(Bin(n, alpha) <= errors_allowed) <= delta.

    So many accepted rows, with at most so many errors, prove "risk <= alpha" at error level delta
    (59 for alpha = delta = .05 without an error). Raises InvalidInputError for shares outside (0, 1) or a negative
    count, and when more than ten million rows would be needed.
    """
    _check_share("alpha", alpha)
    _check_share("delta", delta)
    if errors_allowed < 0:
        raise InvalidInputError(f"errors_allowed must be 0 or more, got {errors_allowed}")
    high = errors_allowed + 1
    while binomial_cdf(errors_allowed, high, alpha) > delta:
        high *= 2
        if high > _MOST_ROWS:
            raise InvalidInputError(f"alpha={alpha} and delta={delta} need over {_MOST_ROWS} rows")
    low = errors_allowed
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_cdf(errors_allowed, middle, alpha) > delta:
            low = middle
        else:
            high = middle
    return high


def _lower_tail(k: int, n: int, p: float) -> float:
    """Sum of the terms 0..k where k is at or below the mean, from the largest term (k) down."""
    log_term = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    odds = (1.0 - p) / p
    term, total = 1.0, 1.0
    for i in range(k, 0, -1):
        term *= odds * i / (n - i + 1)
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return math.exp(log_term + math.log(total))


def _check_counts(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise InvalidInputError(f"need 0 <= successes <= n, got successes={successes} and n={n}")


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise InvalidInputError(f"{name} must lie between 0 and 1, got {value}")
