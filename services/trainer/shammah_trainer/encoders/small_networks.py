"""Small networks of one hidden layer, several trained at once, for the quality head. Plain arrays in and out.

Many small networks on the same few rows are one batched product. Cross-fitting is the same with other rows left out:
each network has a mask of the rows that it may see. A step is so little arithmetic that its gradient is written out:
what autograd and an optimizer ask of a device takes several times as long. On a CPU one thread does it: a team of them
waits for each other in each of thousands of small operations, for seconds where others want the cores. It knows no
text and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi

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
# Of Adam (Kingma & Ba 2015): what is kept of the means of gradients and of their squares, and the least root of these.
_KEPT = 0.9
_SQUARES_KEPT = 0.999
_LEAST_ROOT = 1e-8


@dataclass(frozen=True, slots=True)
class Networks:
    """Weights of M networks: `wide` `[M, H, F]`, `wide_bias` `[M, H]`, `narrow` `[M, H]`, `bias` `[M]`."""

    wide: Tensor
    wide_bias: Tensor
    narrow: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Map standardised features `[n, F]` to logits `[M, n]`."""
        hidden = torch.relu(torch.einsum("nf,mhf->mhn", features, self.wide) + self.wide_bias[:, :, None])
        return torch.einsum("mhn,mh->mn", hidden, self.narrow) + self.bias[:, None]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """`MEMBERS` trained networks; `fitted` `[n]` are cross-fitted probabilities, `loss` their mean log loss in nats."""

    networks: Networks
    fitted: Array
    loss: float
    decay: float


def fit_ensemble(
    features: Array,
    labels: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
    *,
    seed: int,
    device: torch.device | None = None,
) -> Ensemble:
    """Train on features `[n, F]`; the decay is the one of `DECAYS` with the least cross-fitted loss.

    `folds` `[n]` says which rows are left out together; at least two of them must hold rows of both classes outside.
    Columns that never change get no weight: most slots of categories are empty. What is returned lies on the CPU.
    """
    used = np.flatnonzero((features != features[:1]).any(axis=0))
    rows, target = (torch.from_numpy(values).float().to(device) for values in (features[:, used], labels))
    groups = torch.from_numpy(folds).to(device)
    names = torch.unique(groups)
    # [folds * members, n]: what each network may see.
    outside = (groups[None] != names[:, None]).repeat_interleave(_CROSS_MEMBERS, dim=0)
    networks = train_networks(rows, target, outside, decays=DECAYS, seed=seed)
    logits = networks.logits(rows).view(len(DECAYS), len(names), _CROSS_MEMBERS, -1).mean(dim=2)
    own = (groups[None] == names[:, None]).float()
    fitted = torch.sigmoid((logits * own).sum(dim=1)).cpu().numpy().astype(np.float64)
    losses = [log_loss(row, labels) for row in fitted]
    best = int(np.argmin(losses))
    everything = torch.ones(MEMBERS, len(rows), dtype=torch.bool, device=rows.device)
    chosen = train_networks(rows, target, everything, decays=DECAYS[best : best + 1], seed=seed)
    return Ensemble(_spread(chosen, used, features.shape[1]), fitted[best], losses[best], DECAYS[best])


def train_networks(features: Tensor, target: Tensor, seen: Tensor, *, decays: Sequence[float], seed: int) -> Networks:
    """Train a network for each decay and row of `seen` bool `[M, n]` by AdamW on cross-entropy, the same draws for all.

    The networks of a decay come after each other; those of all decays start alike and are one batched product, which
    takes little longer than one of them. All tensors are of one device; what is drawn is the same on any.

    Gaussian noise on the standardised features keeps them from trusting one column's exact value.
    """
    generator = torch.Generator().manual_seed(seed)
    shown, device = seen.float().repeat(len(decays), 1), features.device
    weights = _start(features, target, shown, copies=len(decays), generator=generator)
    strengths = torch.tensor(decays, device=device).repeat_interleave(len(seen))
    descent = _Descent(weights, strengths)
    with _one_thread():
        batch = _Batch.draw(features, target, shown)
        for step in range(_STEPS):
            if len(features) > _BATCH:
                rows = torch.randperm(len(features), generator=generator)[:_BATCH].to(device)
                batch = _Batch.draw(features[rows], target[rows], shown[:, rows])
            noise = torch.randn(batch.rows[:, :-1].shape, generator=generator).to(device)
            descent.step(batch.with_noise(noise), step)
    return weights.as_networks()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in this thread alone; others keep their teams, which torch counts by thread.

    A thread whose first use of torch is meanwhile begins with one too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Weights:
    """One number for each weight of M networks, all in `flat`, so that a step of descent is a few operations."""

    def __init__(self, count: int, width: int, device: torch.device) -> None:
        sizes = [count * HIDDEN * (width + 1), count * HIDDEN, count]
        self.flat = torch.zeros(sum(sizes), device=device)
        wide, narrow, bias = self.flat.split(sizes)
        self.wide = wide.view(count * HIDDEN, width + 1)  # the last column is the bias of a unit
        self.narrow = narrow.view(count, 1, HIDDEN)
        self.bias = bias.view(count, 1, 1)

    def as_networks(self) -> Networks:
        wide = self.wide.view(len(self.bias), HIDDEN, -1)
        return Networks(wide[:, :, :-1], wide[:, :, -1], self.narrow[:, 0], self.bias[:, 0, 0])


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows `[b, F + 1]` whose last column is 1, targets `[b]`, and each row's share `[M, 1, b]` in a network's loss."""

    rows: Tensor
    target: Tensor
    share: Tensor

    @classmethod
    def draw(cls, features: Tensor, target: Tensor, shown: Tensor) -> _Batch:
        share = shown / shown.sum(dim=1, keepdim=True).clamp(min=1.0)
        return cls(torch.cat([features, features.new_ones(len(features), 1)], dim=1), target, share[:, None])

    def with_noise(self, noise: Tensor) -> _Batch:
        rows = self.rows.clone()
        rows[:, :-1].add_(noise, alpha=_NOISE)
        return _Batch(rows, self.target, self.share)


class _Descent:
    """AdamW with a cosine to 0 (Loshchilov & Hutter 2019) on weights whose decay differs by network."""

    def __init__(self, weights: _Weights, decays: Tensor) -> None:
        """Take the decay `[M]` of each network; biases do not decay."""
        count, width, device = len(decays), weights.wide.shape[1] - 1, decays.device
        self._weights = weights
        self._gradient, self._mean, self._square, decay = (_Weights(count, width, device) for _ in range(4))
        decay.wide[:, :-1] = decays.repeat_interleave(HIDDEN)[:, None]
        decay.narrow[:] = decays[:, None, None]
        self._decay = decay.flat
        self._units = torch.empty(0, device=device)

    def step(self, batch: _Batch, number: int) -> None:
        """Move the weights by the gradient on a batch; `number` counts from 0."""
        shape = (len(self._weights.bias), HIDDEN, len(batch.rows))
        if self._units.shape != shape:
            self._units = torch.empty(shape, device=batch.rows.device)
        _differentiate(self._weights, self._gradient, batch, self._units)
        weights, gradient = self._weights.flat, self._gradient.flat
        rate = _LEARNING_RATE * (1 + cos(pi * number / _STEPS)) / 2
        mean = self._mean.flat.lerp_(gradient, 1 - _KEPT)
        square = self._square.flat.mul_(_SQUARES_KEPT).addcmul_(gradient, gradient, value=1 - _SQUARES_KEPT)
        root = (square / (1 - _SQUARES_KEPT ** (number + 1))).sqrt_().add_(_LEAST_ROOT)
        weights.addcmul_(weights, self._decay, value=-rate)
        weights.addcdiv_(mean, root, value=-rate / (1 - _KEPT ** (number + 1)))


def _start(features: Tensor, target: Tensor, shown: Tensor, *, copies: int, generator: torch.Generator) -> _Weights:
    """Return random weights, the same in each of `copies`, and biases at what each network may see of the target."""
    count, width = len(shown) // copies, features.shape[1]
    weights = _Weights(len(shown), width, features.device)
    wide = torch.randn(count, HIDDEN, width, generator=generator) * (2.0 / max(width, 1)) ** 0.5
    narrow = torch.randn(count, HIDDEN, generator=generator) * (1.0 / HIDDEN) ** 0.5
    weights.wide[:, :-1] = wide.view(count * HIDDEN, width).repeat(copies, 1)
    weights.narrow[:] = narrow[:, None].repeat(copies, 1, 1)
    # The start of a network must not know of rows that it may not see either.
    prior = ((shown @ target) / shown.sum(dim=1).clamp(min=1.0)).clamp(0.01, 0.99)
    weights.bias[:, 0, 0] = torch.logit(prior)
    return weights


def _differentiate(weights: _Weights, gradient: _Weights, batch: _Batch, units: Tensor) -> None:
    """Write the gradient of each network's mean cross-entropy on a batch into `gradient`; `units` `[M, H, b]` is room.

    Room of that size, asked for in each step, is taken from the system and given back to it in each step.
    """
    torch.mm(weights.wide, batch.rows.T, out=units.view(len(weights.wide), -1)).relu_()
    logits = torch.baddbmm(weights.bias, weights.narrow, units)
    error = logits.sigmoid_().sub_(batch.target).mul_(batch.share)  # [M, 1, b]
    torch.bmm(error, units.transpose(1, 2), out=gradient.narrow)
    torch.sum(error, dim=2, keepdim=True, out=gradient.bias)
    # A unit that is off passes nothing back; the sign of what is never negative is quicker than a comparison.
    back = units.sign_().mul_(error)
    torch.mm(back.view(len(weights.wide), -1), batch.rows, out=gradient.wide)
    gradient.wide.mul_(weights.narrow.view(-1, 1))


def _spread(networks: Networks, used: npt.NDArray[np.int64], width: int) -> Networks:
    """Return networks of `used` columns as ones of `width` columns, on the CPU."""
    wide, wide_bias, narrow, bias = (
        tensor.cpu() for tensor in (networks.wide, networks.wide_bias, networks.narrow, networks.bias)
    )
    spread = torch.zeros(*wide.shape[:2], width)
    spread[:, :, torch.from_numpy(used)] = wide
    return Networks(spread, wide_bias, narrow, bias)
