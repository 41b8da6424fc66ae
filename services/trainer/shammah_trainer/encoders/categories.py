"""The category head of the router, fitted on embeddings: a softmax, and how near a query must be to what was seen.

Plain tensors in and out. It knows no text and no files.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shammah_trainer.encoders.bert import unit_vectors
from shammah_trainer.encoders.networks import NO_PROTOTYPE, PROTOTYPES, RouterNetwork
from shammah_trainer.encoders.results import RouterHyper

_STEPS = 100
_ROWS_A_PROTOTYPE = 5
_LLOYD_STEPS = 10
_FOLDS = 5
# A category of one row has nothing to be measured against; cosine 0.5 is near for MiniLM.
_LONE_FLOOR = 0.5


def fit_category_head(network: RouterNetwork, embeddings: Tensor, slots: Tensor, hyper: RouterHyper) -> None:
    """Fit the softmax by weighted cross-entropy from the weights it has: embeddings `[n, D]`, slots int64 `[n]`.

    Each category weighs the same whatever its number of rows. A category without rows keeps its weights, which the
    others may then outgrow: `recall_absent` gives it rows.
    """
    counts = torch.bincount(slots, minlength=len(network.slots)).to(torch.float32)
    present = counts > 0
    balance = torch.where(present, len(slots) / (present.sum() * counts.clamp(min=1.0)), 0.0)
    old_weight, old_bias = network.category.weight.detach().clone(), network.category.bias.detach().clone()
    weight = old_weight.clone().requires_grad_(True)
    bias = old_bias.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")
    open_slots = network.slots

    def closure() -> Tensor:
        optimizer.zero_grad()
        used_weight = torch.where(present[:, None], weight, old_weight)
        used_bias = torch.where(present, bias, old_bias)
        logits = embeddings @ used_weight.T + used_bias + open_slots
        loss = torch.nn.functional.cross_entropy(logits, slots, weight=balance, reduction="sum")
        loss = (loss + 0.5 * hyper.category_penalty * weight.square().sum()) / len(slots)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        network.category.weight.copy_(torch.where(present[:, None], weight, old_weight))
        network.category.bias.copy_(torch.where(present, bias, old_bias))


def recall_absent(network: RouterNetwork, *, present: set[int], known: int) -> tuple[Tensor, Tensor]:
    """Return stand-in rows for known categories that a round has no rows of: their prototypes, with their slots.

    Without them such a category would be forgotten as soon as another one is learned.
    """
    absent = [slot for slot in range(known) if slot not in present]
    chosen = torch.zeros(network.prototype_bias.shape, dtype=torch.bool)
    chosen[absent] = network.prototype_bias[absent] == 0.0
    return network.prototypes[chosen], chosen.nonzero()[:, 0]


def fit_nearness(network: RouterNetwork, embeddings: Tensor, slots: Tensor, hyper: RouterHyper, *, seed: int) -> None:
    """Place the prototypes of each category that has rows, and its floor of nearness.

    The floor is a low quantile of the category's own cosines, each against prototypes made without it (5 folds), less
    a margin.
    """
    prototypes, bias = network.prototypes.clone(), network.prototype_bias.clone()
    floors = network.nearness_floor.clone()
    for slot in sorted(set(slots.tolist())):
        own = embeddings[slots == slot]
        centres = find_prototypes(own, seed=seed)
        prototypes[slot] = 0.0
        prototypes[slot, : len(centres)] = centres
        bias[slot] = torch.where(torch.arange(PROTOTYPES) < len(centres), 0.0, NO_PROTOTYPE)
        floors[slot] = _measure_floor(own, hyper, seed=seed)
    network.prototypes, network.prototype_bias, network.nearness_floor = prototypes, bias, floors


def find_prototypes(rows: Tensor, *, seed: int) -> Tensor:
    """Return up to `PROTOTYPES` unit centres `[k, D]` of unit rows `[n, D]` by spherical k-means, one for 5 rows."""
    count = max(1, min(PROTOTYPES, len(rows) // _ROWS_A_PROTOTYPE))
    generator = np.random.default_rng(seed)
    centres = rows[torch.from_numpy(generator.permutation(len(rows))[:count])]
    for _ in range(_LLOYD_STEPS):
        nearest = (rows @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        used = torch.bincount(nearest, minlength=count) > 0
        centres = torch.where(used[:, None], unit_vectors(sums), centres)
    return centres


def _measure_floor(rows: Tensor, hyper: RouterHyper, *, seed: int) -> float:
    folds = min(_FOLDS, len(rows))
    if folds < 2:
        return _LONE_FLOOR
    fold = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)) % folds)
    cosines = [
        (rows[fold == number] @ find_prototypes(rows[fold != number], seed=seed).T).amax(dim=1)
        for number in range(folds)
    ]
    return float(torch.quantile(torch.cat(cosines), hyper.nearness_quantile)) - hyper.nearness_margin
