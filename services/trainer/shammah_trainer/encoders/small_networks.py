"""Small networks of one hidden layer, several trained at once, for the quality head. Plain arrays in and out.

Many small networks on the same few rows are one batched product. Cross-fitting is the same with other rows left out:
each network has a mask of the rows that it may see. It knows no text and no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shammah_trainer.encoders.logistic import Array, log_loss
from shammah_trainer.encoders.networks import HIDDEN, MEMBERS

DECAYS = (0.3, 1.0, 3.0)
"""Strengths of decoupled weight decay that cross-fitting chooses from."""
_CROSS_MEMBERS = 2
_STEPS = 240
_BATCH = 1024
_LEARNING_RATE = 0.01
_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Networks:
    """Weights of M networks: `wide` `[M, H, F]`, `wide_bias` `[M, H]`, `narrow` `[M, H]`, `bias` `[M]`."""

    wide: Tensor
    wide_bias: Tensor
    narrow: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Map standardised features `[n, F]` to logits `[M, n]`."""
        hidden = torch.relu(torch.einsum("nf,mhf->mnh", features, self.wide) + self.wide_bias[:, None])
        return torch.einsum("mnh,mh->mn", hidden, self.narrow) + self.bias[:, None]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """`MEMBERS` trained networks; `fitted` `[n]` are cross-fitted probabilities, `loss` their mean log loss in nats."""

    networks: Networks
    fitted: Array
    loss: float
    decay: float


def fit_ensemble(
    features: Array, labels: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64], *, seed: int
) -> Ensemble:
    """Train on features `[n, F]`; the decay is the one of `DECAYS` with the least cross-fitted loss.

    `folds` `[n]` says which rows are left out together; at least two of them must hold rows of both classes outside.
    """
    rows, target = torch.from_numpy(features).float(), torch.from_numpy(labels).float()
    groups = torch.from_numpy(folds)
    names = torch.unique(groups)
    # [folds * members, n]: what each network may see.
    outside = (groups[None] != names[:, None]).repeat_interleave(_CROSS_MEMBERS, dim=0)
    best: tuple[float, float, Array] | None = None
    for decay in DECAYS:
        networks = train_networks(rows, target, outside, decay=decay, seed=seed)
        with torch.no_grad():
            logits = networks.logits(rows).view(len(names), _CROSS_MEMBERS, -1).mean(dim=1)
        own = (groups[None] == names[:, None]).float()
        fitted = torch.sigmoid((logits * own).sum(dim=0)).numpy().astype(np.float64)
        loss = log_loss(fitted, labels)
        if best is None or loss < best[0]:
            best = (loss, decay, fitted)
    assert best is not None
    everything = torch.ones(MEMBERS, len(rows), dtype=torch.bool)
    return Ensemble(train_networks(rows, target, everything, decay=best[1], seed=seed), best[2], best[0], best[1])


def train_networks(features: Tensor, target: Tensor, seen: Tensor, *, decay: float, seed: int) -> Networks:
    """Train one network for each row of `seen` bool `[M, n]` by AdamW on cross-entropy, the same draws for all.

    Gaussian noise on the standardised features keeps them from trusting one column's exact value.
    """
    generator = torch.Generator().manual_seed(seed)
    count, width = len(seen), features.shape[1]
    shown = seen.float()
    # The start of a network must not know of rows that it may not see either.
    prior = ((shown @ target) / shown.sum(dim=1).clamp(min=1.0)).clamp(0.01, 0.99)
    wide = torch.randn(count, HIDDEN, width, generator=generator) * (2.0 / width) ** 0.5
    narrow = torch.randn(count, HIDDEN, generator=generator) * (1.0 / HIDDEN) ** 0.5
    weights = [wide, narrow]
    biases = [torch.zeros(count, HIDDEN), torch.logit(prior)]
    for tensor in (*weights, *biases):
        tensor.requires_grad_(True)
    networks = Networks(wide, biases[0], narrow, biases[1])
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        batch = torch.randperm(len(features), generator=generator)[:_BATCH]
        drawn = features[batch]
        drawn = drawn + _NOISE * torch.randn(drawn.shape, generator=generator)
        logits = networks.logits(drawn)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target[batch].expand_as(logits), reduction="none"
        )
        mask = shown[:, batch]
        loss = ((losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return Networks(*(tensor.detach() for tensor in (wide, biases[0], narrow, biases[1])))
