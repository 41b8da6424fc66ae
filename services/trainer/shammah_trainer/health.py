"""Watches that losses stay numbers, without making the device wait at every step."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from shammah_trainer.problems import DivergedError

_EVERY = 16  # steps between two looks on a GPU; a look is read one look later, so the queue never runs dry


class HealthWatch:
    """Counts losses that are no numbers on the device, and looks at the count now and then."""

    def __init__(self, device: torch.device, steps: int) -> None:
        """Begin with nothing seen; `steps`: how many there will be, for the message."""
        self._bad = torch.zeros((), dtype=torch.int32, device=device)
        self._device = device
        self._steps = steps
        self._looks: deque[tuple[int, Tensor, torch.cuda.Event]] = deque()

    def note(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take in loss and gradient norm of a step (counted from 0).

        Raises:
            DivergedError: this loss is not finite (on a CPU), or one of some steps ago was not (on a GPU).
        """
        fine = torch.isfinite(loss) & torch.isfinite(norm)
        if self._device.type != "cuda":
            if not bool(fine):
                raise DivergedError(f"the loss at step {step + 1} of {self._steps} is not finite")
            return
        self._bad += ~fine
        if (step + 1) % _EVERY == 0:
            self._look(step)
            if len(self._looks) > 1:
                self._read()

    def finish(self) -> None:
        """Wait for the device and look for the last time.

        Raises:
            DivergedError: a loss was not finite.
        """
        if self._device.type != "cuda":
            return
        self._look(self._steps - 1)
        while self._looks:
            self._read()

    def _look(self, step: int) -> None:
        copy = torch.empty((), dtype=torch.int32, pin_memory=True)
        copy.copy_(self._bad, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._looks.append((step, copy, event))

    def _read(self) -> None:
        step, copy, event = self._looks.popleft()
        event.synchronize()
        if int(copy):
            raise DivergedError(f"a loss at or before step {step + 1} of {self._steps} is not finite")
