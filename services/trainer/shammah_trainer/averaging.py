"""The mean of the weights over the steps, and the way back to the weights that a run started from.

Polyak and Juditsky 1992 (means, exponential or of the tail of the run); Li et al. 2018 (L2-SP, a pull to the start),
Wortsman et al. 2022 (WiSE-FT, between start and end). Whether it pays is measured, not assumed. It knows vectors.
"""

from __future__ import annotations

from collections.abc import Callable

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


class Anchor:
    """The weights that a run started from, where it recalls old rows: what was learned there is not to be lost."""

    def __init__(self, hyper: SftHyper, start: Tensor, *, recalls: bool) -> None:
        """Keep a copy of `start`, if it will be asked for."""
        self._pull, self._kept, self._checks = hyper.anchor, hyper.kept, hyper.kept_checks
        self._start = start.detach().clone() if recalls and (self._pull or self._kept) else None

    def pull(self, vector: Tensor, rate: float) -> None:
        """Draw the weights back by the share `rate * anchor` of their way, apart from the gradient, as AdamW decays."""
        if self._start is not None and self._pull:
            vector.lerp_(self._start, min(1.0, rate * self._pull))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def keep(self, vector: Tensor, evaluate: Callable[[], float]) -> float:
        """Go back a share of the way, `kept` or the best of some up to it by dev loss; return the share.

        `evaluate` returns the dev loss of the weights in `vector`.
        """
        if self._start is None or not self._kept:
            return 0.0
        end, best = vector.clone(), (float("inf"), self._kept)
        for check in range(self._checks + 1 if self._checks else 0):
            share = self._kept * check / self._checks
            vector.copy_(end).lerp_(self._start, share)
            best = min(best, (evaluate(), share))
        vector.copy_(end).lerp_(self._start, best[1])
        return best[1]
