"""Small networks of one hidden layer, several trained at once, for the quality head. Plain arrays in and out.

Many small networks on the same few rows are one batched product. Cross-fitting is the same with other rows left out:
each network has a mask of the rows that it may see. It knows no text and no files.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    networks = train_networks(rows, target, outside, decays=DECAYS, seed=seed)
    with torch.no_grad():
        logits = networks.logits(rows).view(len(DECAYS), len(names), _CROSS_MEMBERS, -1).mean(dim=2)
    own = (groups[None] == names[:, None]).float()
    fitted = torch.sigmoid((logits * own).sum(dim=1)).numpy().astype(np.float64)
    losses = [log_loss(row, labels) for row in fitted]
    best = int(np.argmin(losses))
    everything = torch.ones(MEMBERS, len(rows), dtype=torch.bool)
    chosen = train_networks(rows, target, everything, decays=DECAYS[best : best + 1], seed=seed)
    return Ensemble(chosen, fitted[best], losses[best], DECAYS[best])


def train_networks(features: Tensor, target: Tensor, seen: Tensor, *, decays: Sequence[float], seed: int) -> Networks:
    """Train a network for each decay and row of `seen` bool `[M, n]` by AdamW on cross-entropy, the same draws for all.

    The networks of a decay come after each other; those of all decays start alike and are one batched product, which
    takes little longer than one of them.

    Gaussian noise on the standardised features keeps them from trusting one column's exact value.
    """
    generator = torch.Generator().manual_seed(seed)
    count, width, copies = len(seen), features.shape[1], len(decays)
    shown = seen.float().repeat(copies, 1)
    # The start of a network must not know of rows that it may not see either.
    prior = ((shown @ target) / shown.sum(dim=1).clamp(min=1.0)).clamp(0.01, 0.99)
    wide = (torch.randn(count, HIDDEN, width, generator=generator) * (2.0 / width) ** 0.5).repeat(copies, 1, 1)
    narrow = (torch.randn(count, HIDDEN, generator=generator) * (1.0 / HIDDEN) ** 0.5).repeat(copies, 1)
    weights = [wide, narrow]
    biases = [torch.zeros(copies * count, HIDDEN), torch.logit(prior)]
    decay = torch.tensor(decays).repeat_interleave(count)[:, None]
    for tensor in (*weights, *biases):
        tensor.requires_grad_(True)
    networks = Networks(wide, biases[0], narrow, biases[1])
    optimizer = torch.optim.AdamW([*weights, *biases], lr=_LEARNING_RATE, weight_decay=0.0)
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
        with torch.no_grad():  # AdamW's own decay, which it knows one strength of
            left = 1 - optimizer.param_groups[0]["lr"] * decay
            wide.mul_(left[:, :, None])
            narrow.mul_(left)
        optimizer.step()
        scheduler.step()
    return Networks(*(tensor.detach() for tensor in (wide, biases[0], narrow, biases[1])))
