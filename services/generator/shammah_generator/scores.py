"""How sure the model was of a token that was chosen.

It knows one row of logits at a time. Scores always describe the model's own distribution, before temperature, cuts and
constraint: a forced token does not look sure.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from shammah_chassis.errors import ShammahError

from shammah_generator.arrays import Array, Floats

_LENT = threading.local()


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How sure the model was at one position; all log-probabilities are of its own, unconstrained distribution.

    `logprob` of the chosen token and `entropy` of the full distribution are in nats; `margin` is the log-probability of
    the likeliest token minus that of the second, `top_logprob` that of the likeliest. Where the response is constrained
    `allowed_logprob` is that of all allowed tokens together, and `forced` tells that the likeliest is not among them.
    """

    token: int
    logprob: float
    entropy: float
    margin: float
    top_logprob: float
    allowed_logprob: float | None = None
    forced: bool = False


def score_token(logits: Floats, *, token: int, top: int, allowed: Array | None = None) -> TokenScore:
    """Score one token of a row of logits `[vocab]` whose largest value is at `top`.

    Args:
        logits: what the model gave.
        token: the chosen one.
        top: place of the largest value.
        allowed: ascending ids of those that could be chosen; None means all.

    Raises:
        ShammahError: the logits are not finite.
    """
    require_finite(float(logits[top]))
    shifted, powers = _lend_rows(logits.size)
    np.subtract(logits, logits[top], out=shifted, dtype=np.float32)
    np.exp(shifted, out=powers)
    total = float(powers.sum(dtype=np.float64))
    log_total = math.log(total)
    # H = -sum p log p with log p = shifted - log_total. A plain sum: BLAS would differ between aligned rows.
    with np.errstate(invalid="ignore"):  # 0 * -inf is caught below
        np.multiply(powers, shifted, out=powers)
    entropy = log_total - float(powers.sum(dtype=np.float64)) / total
    require_finite(entropy)
    chosen = float(shifted[token])
    mass = None if allowed is None else _sum_in_log(shifted[allowed]) - log_total
    shifted[top] = -np.inf
    return TokenScore(
        token=token,
        logprob=chosen - log_total,
        entropy=max(0.0, entropy),
        margin=-float(shifted.max()),
        top_logprob=-log_total,
        allowed_logprob=mass if mass is None else min(0.0, mass),
        forced=allowed is not None and not _contains(allowed, top),
    )


def _lend_rows(size: int) -> tuple[Floats, Floats]:
    """Return two rows to compute in, the same ones for each call of a thread: fresh memory costs more than the sums."""
    rows: Floats | None = getattr(_LENT, "rows", None)
    if rows is None or rows.shape[1] != size:
        rows = np.empty((2, size), dtype=np.float32)
        _LENT.rows = rows
    return rows[0], rows[1]


def require_finite(value: float) -> None:
    """Check what was computed from logits.

    Raises:
        ShammahError: it is not a finite number.
    """
    if not math.isfinite(value):
        raise ShammahError("the model gave logits that are not numbers")


def _sum_in_log(values: Floats) -> float:
    """Return the logarithm of the sum of the exponentials, however small they are."""
    high = float(values.max())
    return high + math.log(float(np.exp(values - high).sum(dtype=np.float64)))


def _contains(ascending: Array, value: int) -> bool:
    place = int(np.searchsorted(ascending, value))
    return place < ascending.size and int(ascending[place]) == value
