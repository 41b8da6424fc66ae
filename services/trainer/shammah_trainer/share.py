"""What part of a training is this process' own, when several do it together (data parallel).

It knows `torch.distributed` and tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True, slots=True)
class Share:
    """Process `rank` of `size`. Of the bins of a step it computes number rank, rank + size, ..."""

    rank: int = 0
    size: int = 1

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes; nothing happens with one."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def agree(self, value: float, device: torch.device) -> float:
        """Return process 0's value in every process."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(held, src=0)
        return float(held)


ALONE = Share()
