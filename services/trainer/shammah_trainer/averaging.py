"""The mean of the weights over the steps: exponential (EMA), or of the tail of the run.

Polyak and Juditsky 1992; whether it pays is measured, not assumed. It knows one vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shammah_trainer.hyper import SftHyper


class WeightAverage:
    """Follows a vector of weights step by step."""

    def __init__(self, hyper: SftHyper, steps: int) -> None:
        """Nothing is averaged yet; `steps`: how many there will be."""
        self._mode = hyper.averaging
        self._decay = hyper.ema_decay
        self._from = 0 if self._mode == "ema" else int(steps * (1 - hyper.tail_share))
        self.count = 0
        self.mean: Tensor | None = None

    def note(self, vector: Tensor, step: int) -> None:
        """Take in the weights after a step (counted from 0)."""
        if self._mode == "off" or step < self._from:
            return
        if self.mean is None:
            self.mean = vector.detach().clone()
        # While few are seen, the EMA is the plain mean of them: its start would weigh too much otherwise.
        share = 1 / (self.count + 1)
        if self._mode == "ema":
            share = max(share, 1 - self._decay)
        self.mean.lerp_(vector, share)
        self.count += 1

    def apply(self, vector: Tensor) -> None:
        """Overwrite the weights by their mean, if there is one."""
        if self.mean is not None:
            with torch.no_grad():
                vector.copy_(self.mean)
