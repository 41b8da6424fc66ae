"""The quality head of the validator: P(good) from statistics, nearest examples, text scores and category.

Fitted on graded dev rollouts only. Two heads on the same rows: one with the statistics, one without for texts that the
student did not generate. Each is a logistic regression or, where cross-fitting says that they rank better, a few small
networks. It knows no files; the networks' own features are used, so that what is fitted is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from shammah_chassis.neighbours import Floats
from torch import Tensor

from shammah_trainer.encoders.head_choice import HeadReport, report_head
from shammah_trainer.encoders.logistic import FOLDS, fit_logistic, leave_out, log_loss, number_folds, standardise
from shammah_trainer.encoders.networks import (
    CAPACITY,
    CLIP,
    MEMBERS,
    STATISTICS,
    QualityHead,
    ValidatorNetwork,
    signed_log,
    text_features,
)
from shammah_trainer.encoders.results import GradedRow, fold_of
from shammah_trainer.encoders.small_networks import Networks, fit_ensemble
from shammah_trainer.encoders.text_stage import TextStage

LEAST_ROWS = 300
"""Graded rows under which small networks aren't tried."""
LEAST_OF_A_CLASS = 40
"""Rows of the rarer class under which they aren't."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """What was fitted: "logistic" or "networks", whether it is only the prior, and what cross-fitting says of it.

    `fitted` `[n]`: P(good) of each row by a fit that left its fold out; None where all rows are of one fold, or the
    head is only the prior: that is the same for all, but for its rounding.
    """

    kind: str
    constant: bool
    report: HeadReport
    fitted: npt.NDArray[np.float64] | None


def gather_features(stage: TextStage, graded: Sequence[GradedRow], labels: Sequence[str], neighbours: Floats) -> Tensor:
    """Return the raw features `[n, 10 + 8 + 4 + CAPACITY]` of graded rows: statistics, nearest examples, text."""
    logits, lengths = stage.score([(row.query, row.response) for row in graded])
    slot_of = {label: slot for slot, label in enumerate(labels)}
    category = torch.zeros(len(graded), CAPACITY)
    for number, row in enumerate(graded):
        if row.category:
            category[number, slot_of[row.category]] = 1.0
    statistics = torch.tensor([list(row.statistics) for row in graded], dtype=torch.float32).reshape(-1, STATISTICS)
    text = text_features(torch.from_numpy(logits), torch.from_numpy(lengths), category)
    return torch.cat([signed_log(statistics), torch.from_numpy(neighbours), text], dim=1)


def fit_quality_heads(
    network: ValidatorNetwork,
    features: Tensor,
    graded: Sequence[GradedRow],
    *,
    seed: int,
    device: torch.device | None = None,
) -> tuple[FittedHead, FittedHead]:
    """Fit both heads of `network`, small networks on `device`; returns what was fitted with and without statistics.

    No rows leave the heads as they are.
    """
    good = _labels(graded)
    folds = number_folds([fold_of(row.query, FOLDS) for row in graded])
    full = _fit(network.quality_full, features, (good, folds), seed=seed, device=device)
    text_only = _fit(network.quality_text, features[:, STATISTICS:], (good, folds), seed=seed, device=device)
    return full, text_only


def quality_loss(network: ValidatorNetwork, features: Tensor, graded: Sequence[GradedRow]) -> float:
    """Return the mean log loss of the network's present head with statistics on graded rows; 0 for none."""
    with torch.no_grad():
        return log_loss(network.quality_full(features).numpy().astype(np.float64), _labels(graded))


def _fit(
    head: QualityHead,
    features: Tensor,
    graded: tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]],
    *,
    seed: int,
    device: torch.device | None,
) -> FittedHead:
    """Fit one head; `graded` are labels and folds."""
    good, folds = graded
    raw = features.numpy().astype(np.float64)
    numbers, mean, scale = standardise(raw[:, :-CAPACITY], clip=CLIP)
    # One-hot columns stay 0 and 1: scaled, a rare category would be cut at the clip.
    mean = np.concatenate([mean, np.zeros(CAPACITY)])
    scale = np.concatenate([scale, np.ones(CAPACITY)])
    standard = np.concatenate([numbers, raw[:, -CAPACITY:]], axis=1)
    logistic = fit_logistic(standard, good, folds)
    report = report_head(logistic.fitted, good)
    if not len(good):
        return FittedHead("logistic", logistic.constant, report, None)
    fitted = leave_out(logistic, folds)
    values = {"mean": mean, "scale": scale, "weight": logistic.weight, "bias": np.array([logistic.bias])}
    small: Networks | None = None
    if len(good) >= LEAST_ROWS and min(good.sum(), (~good).sum()) >= LEAST_OF_A_CLASS and len(set(folds)) > 1:
        ensemble = fit_ensemble(standard, good, folds, seed=seed, device=device)
        tried = report_head(ensemble.fitted, good)
        if tried.beats(report):
            small, report, fitted = ensemble.networks, tried, ensemble.fitted
            values |= {"weight": np.zeros_like(logistic.weight), "bias": small.bias.mean(dim=0, keepdim=True).numpy()}
    for name, value in values.items():
        getattr(head, name).copy_(torch.from_numpy(value).to(torch.float32))
    _fill_small(head, small)
    return FittedHead("networks" if small else "logistic", logistic.constant, report, fitted)


def _fill_small(head: QualityHead, small: Networks | None) -> None:
    """Put the members side by side; their average is one network."""
    if small is None:
        for tensor in (head.wide, head.wide_bias, head.narrow):
            tensor.zero_()
        return
    head.wide.copy_(small.wide.flatten(0, 1))
    head.wide_bias.copy_(small.wide_bias.flatten())
    head.narrow.copy_(small.narrow.flatten() / MEMBERS)


def _labels(graded: Sequence[GradedRow]) -> npt.NDArray[np.bool_]:
    return np.array([row.good for row in graded], dtype=np.bool_)
