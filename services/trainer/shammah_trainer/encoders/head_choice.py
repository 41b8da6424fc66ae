"""How good a quality head is on rows that it was not fitted on, and which of two is better. Plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shammah_trainer.encoders.logistic import Array, log_loss

PRECISION = 0.95
"""Share of good ones among the accepted at which heads are compared: the usual promise."""
_BINS = 10


@dataclass(frozen=True, slots=True)
class HeadReport:
    """Of cross-fitted probabilities: mean log loss in nats, AUROC, share accepted at `PRECISION`, calibration error.

    The calibration error is the mean distance between said and found share of good ones over ten bins of equal size,
    weighted by their rows (Naeini et al. 2015, with equal mass).
    """

    loss: float
    auroc: float
    accepted_share: float
    calibration_error: float

    def beats(self, other: HeadReport) -> bool:
        """Tell whether this head is better: less loss, and no smaller share accepted at the promise."""
        return self.loss < other.loss and self.accepted_share >= other.accepted_share


def report_head(probability: Array, good: npt.NDArray[np.bool_]) -> HeadReport:
    """Measure cross-fitted probabilities `[n]` against what happened."""
    return HeadReport(
        log_loss(probability, good),
        measure_auroc(probability, good),
        measure_accepted(probability, good, precision=PRECISION),
        measure_calibration(probability, good),
    )


def measure_auroc(scores: Array, good: npt.NDArray[np.bool_]) -> float:
    """Return P(a good one scores above a bad one), ties half; one half where a class is missing."""
    count = int(good.sum())
    rest = len(good) - count
    if not count or not rest:
        return 0.5
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(size) - (size - 1) / 2.0
    return float((ranks[place][good].sum() - count * (count + 1) / 2) / (count * rest))


def measure_accepted(scores: Array, good: npt.NDArray[np.bool_], *, precision: float) -> float:
    """Return the largest share of rows above one threshold of which at least `precision` are good; ties stay together.

    The threshold is picked on the same rows, so this compares heads; it is no promise.
    """
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(good[order]) / np.arange(1, len(scores) + 1)
    last_of_ties = np.append(scores[order][1:] != scores[order][:-1], True)
    passing = np.flatnonzero((found >= precision) & last_of_ties)
    return float((passing[-1] + 1) / len(scores)) if len(passing) else 0.0


def measure_calibration(probability: Array, good: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error over `_BINS` bins of equal size; 0 for no rows."""
    if not len(good):
        return 0.0
    parts = np.array_split(np.argsort(probability, kind="stable"), min(_BINS, len(good)))
    return float(sum(len(part) * abs(probability[part].mean() - good[part].mean()) for part in parts) / len(good))
