"""Small regularised logistic regressions, exact and deterministic, with cross-fitted log loss.

Used for the heads that turn features into probabilities: few rows, so no gradient descent, no seed. Plain arrays in
and out; it knows no network and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
PENALTIES = (1.0, 10.0, 100.0)
"""L2 penalties on the sum of losses that cross-fitting chooses from."""
FOLDS = 5
_STEPS = 50
_HALVINGS = 20
_TOLERANCE = 1e-8
_LEAST_OF_A_CLASS = 2
# A bias is free, but without any penalty it runs away on a fold that has one class.
_BIAS_PENALTY = 1e-3
_SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """Weights `[F]` and bias of P(1) = sigmoid(x w + b); `loss` is the mean cross-fitted log loss in nats.

    `constant`: too few rows of one class, so the weights are 0 and the bias is the smoothed prior.
    """

    weight: Array
    bias: float
    loss: float
    constant: bool
    penalty: float
    fitted: Array
    """Cross-fitted probability of each row `[n]`."""


def fit_logistic(features: Array, labels: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> Logistic:
    """Fit P(label) on features `[n, F]`; the penalty is the one of `PENALTIES` with the least cross-fitted loss.

    No rows, or under 2 of a class: Laplace's rule (good + 1) / (n + 2) and no weights. `folds` `[n]` says which rows
    are left out together.
    """
    good = int(labels.sum())
    if min(good, len(labels) - good) < _LEAST_OF_A_CLASS:
        prior = (good + 1) / (len(labels) + 2)
        fitted = np.full(len(labels), prior)
        loss = log_loss(fitted, labels)
        return Logistic(np.zeros(features.shape[1]), float(np.log(prior / (1 - prior))), loss, True, 0.0, fitted)
    basis = _row_basis(features)
    features = features if basis is None else features @ basis
    tried = [cross_fit(features, labels, folds, penalty=penalty) for penalty in PENALTIES]
    losses = [log_loss(fitted, labels) for fitted in tried]
    best = int(np.argmin(losses))
    weight, bias = solve_logistic(features, labels, penalty=PENALTIES[best])
    weight = weight if basis is None else basis @ weight
    return Logistic(weight, bias, losses[best], False, PENALTIES[best], tried[best])


def leave_out(fit: Logistic, folds: npt.NDArray[np.int64]) -> Array | None:
    """Return the cross-fitted probability of each row; None where no fit left anything out.

    That is with all rows in one fold, and where the fit is only the prior: the same for all, but for its rounding.
    """
    return None if fit.constant or len(np.unique(folds)) < 2 else fit.fitted


def solve_logistic(features: Array, labels: npt.NDArray[np.bool_], *, penalty: float) -> tuple[Array, float]:
    """Minimise sum of log losses + penalty / 2 |w|^2 by damped Newton steps; returns weights and bias."""
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    target = labels.astype(np.float64)
    damping = np.full(rows.shape[1], penalty)
    damping[-1] = _BIAS_PENALTY

    def objective(vector: Array) -> float:
        margin = rows @ vector
        return float((np.logaddexp(0.0, margin) - target * margin).sum() + 0.5 * (damping * vector**2).sum())

    vector = np.zeros(rows.shape[1])
    value = objective(vector)
    for _ in range(_STEPS):
        probability = 1.0 / (1.0 + np.exp(-np.clip(rows @ vector, -500, 500)))
        gradient = rows.T @ (probability - target) + damping * vector
        curvature = (rows * (probability * (1 - probability))[:, None]).T @ rows + np.diag(damping)
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        for _ in range(_HALVINGS):
            if (better := objective(vector - scale * step)) <= value:
                break
            scale /= 2
        else:
            break
        vector = vector - scale * step
        if value - better < _TOLERANCE * max(1.0, value):
            break
        value = better
    return vector[:-1], float(vector[-1])


def log_loss(probability: Array, labels: npt.NDArray[np.bool_]) -> float:
    """Return the mean of -log P(what happened) in nats; 0 for no rows."""
    if not len(labels):
        return 0.0
    bounded = np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return float(-np.where(labels, np.log(bounded), np.log(1 - bounded)).mean())


def standardise(features: Array, *, clip: float) -> tuple[Array, Array, Array]:
    """Return features with mean 0 and deviation 1, cut at `clip`, and the mean and scale `[F]` that did it.

    A column that never changes gets scale 1.
    """
    if not len(features):
        return features, np.zeros(features.shape[1]), np.ones(features.shape[1])
    mean = features.mean(axis=0)
    scale = features.std(axis=0)
    scale[scale < _TOLERANCE] = 1.0
    return np.clip((features - mean) / scale, -clip, clip), mean, scale


def _row_basis(features: Array) -> Array | None:
    """Return an orthonormal basis `[F, n]` of the rows `[n, F]`, or None where there are more rows than features.

    The penalised optimum lies in the span of the rows, so solving in that basis is exact and far smaller.
    """
    if len(features) >= features.shape[1]:
        return None
    basis: Array = np.linalg.qr(features.T)[0]
    return basis


def number_folds(folds: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return fold numbers as an array; few queries may leave a fold empty, which does no harm."""
    return np.asarray(folds, dtype=np.int64)


def cross_fit(features: Array, labels: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64], *, penalty: float) -> Array:
    """Return P(label) of each row by a fit that left its fold out; one fold only leaves the prior as the fit."""
    probability = np.full(len(labels), 0.5)
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        weight, bias = solve_logistic(features[outside], labels[outside], penalty=penalty)
        probability[inside] = 1.0 / (1.0 + np.exp(-np.clip(features[inside] @ weight + bias, -500, 500)))
    return probability
