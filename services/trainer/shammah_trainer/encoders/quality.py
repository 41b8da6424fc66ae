"""The quality head of the validator: P(good) from text scores, generation statistics and category.

Fitted on graded dev rollouts only. Two logistic regressions on the same rows: one with the statistics, one without for
texts that the student did not generate. It knows no files; the networks' own features are used, so that what is fitted
is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shammah_trainer.encoders.logistic import FOLDS, Logistic, fit_logistic, log_loss, number_folds, standardise
from shammah_trainer.encoders.networks import (
    CAPACITY,
    CLIP,
    STATISTICS,
    QualityHead,
    ValidatorNetwork,
    signed_log,
    text_features,
)
from shammah_trainer.encoders.results import GradedRow, fold_of
from shammah_trainer.encoders.text_stage import TextStage


def gather_features(stage: TextStage, graded: Sequence[GradedRow], labels: Sequence[str]) -> Tensor:
    """Return the raw features `[n, 10 + 4 + CAPACITY]` of graded rows: statistics first, then those of the text."""
    logits, lengths = stage.score([(row.query, row.response) for row in graded])
    slot_of = {label: slot for slot, label in enumerate(labels)}
    category = torch.zeros(len(graded), CAPACITY)
    for number, row in enumerate(graded):
        if row.category:
            category[number, slot_of[row.category]] = 1.0
    statistics = torch.tensor([list(row.statistics) for row in graded], dtype=torch.float32).reshape(-1, STATISTICS)
    text = text_features(torch.from_numpy(logits), torch.from_numpy(lengths), category)
    return torch.cat([signed_log(statistics), text], dim=1)


def fit_quality_heads(
    network: ValidatorNetwork, features: Tensor, graded: Sequence[GradedRow]
) -> tuple[Logistic, Logistic]:
    """Fit both heads of `network`; returns the fits with and without statistics.

    No rows leave the heads as they are.
    """
    good = _labels(graded)
    folds = number_folds([fold_of(row.query, FOLDS) for row in graded])
    full = _fit(network.quality_full, features, good, folds)
    text_only = _fit(network.quality_text, features[:, STATISTICS:], good, folds)
    return full, text_only


def quality_loss(network: ValidatorNetwork, features: Tensor, graded: Sequence[GradedRow]) -> float:
    """Return the mean log loss of the network's present head with statistics on graded rows; 0 for none."""
    with torch.no_grad():
        return log_loss(network.quality_full(features).numpy().astype(np.float64), _labels(graded))


def _fit(head: QualityHead, features: Tensor, good: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> Logistic:
    raw = features.numpy().astype(np.float64)
    numbers, mean, scale = standardise(raw[:, :-CAPACITY], clip=CLIP)
    # One-hot columns stay 0 and 1: scaled, a rare category would be cut at the clip.
    mean = np.concatenate([mean, np.zeros(CAPACITY)])
    scale = np.concatenate([scale, np.ones(CAPACITY)])
    fit = fit_logistic(np.concatenate([numbers, raw[:, -CAPACITY:]], axis=1), good, folds)
    if len(good):
        for name, values in (("mean", mean), ("scale", scale), ("weight", fit.weight), ("bias", np.array([fit.bias]))):
            getattr(head, name).copy_(torch.from_numpy(values).to(torch.float32))
    return fit


def _labels(graded: Sequence[GradedRow]) -> npt.NDArray[np.bool_]:
    return np.array([row.good for row in graded], dtype=np.bool_)
