"""The learning weights as one long vector, with its gradient, the optimiser and the clipping.

One vector means few launches a step on a GPU, one all-reduce between processes, and one tensor to save. It knows
tensors, no model and no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ALIGN = 64  # elements: compiled kernels want 16-byte aligned tensors


class FlatParameters:
    """Parameters laid into one vector for as long as the training lasts; call `release` at its end."""

    def __init__(self, parameters: Sequence[Any], *, learning_rate: float, weight_decay: float) -> None:
        """Move `parameters` (float32, of one device) into the vector; each stays the same `Parameter` object."""
        self._parameters = list(parameters)
        offsets, total = [], 0
        for parameter in self._parameters:
            offsets.append(total)
            total += -(-parameter.numel() // _ALIGN) * _ALIGN
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self.vector = torch.zeros(total, dtype=torch.float32, device=device)
        self.gradient = torch.zeros_like(self.vector)
        for parameter, offset in zip(self._parameters, offsets, strict=True):
            here = slice(offset, offset + parameter.numel())
            self.vector[here].copy_(parameter.detach().reshape(-1))
            parameter.data = self.vector[here].view_as(parameter)
            parameter.grad = self.gradient[here].view_as(parameter)
        self._leaf = torch.nn.Parameter(self.vector)
        self._leaf.grad = self.gradient
        self._optimiser = torch.optim.AdamW(
            [self._leaf], lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True
        )

    def clip(self, most: float) -> Tensor:
        """Scale the gradient down to norm `most`; return the norm it had, without waiting for the device."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def update(self, learning_rate: float) -> None:
        """Make one step of AdamW and clear the gradient."""
        for settings in self._optimiser.param_groups:
            settings["lr"] = learning_rate
        self._optimiser.step()
        self.gradient.zero_()

    def read_moments(self) -> dict[str, Tensor]:
        """Return AdamW's state by name; empty before the first step."""
        state = self._optimiser.state.get(self._leaf, {})
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}

    def write_moments(self, moments: dict[str, Tensor]) -> None:
        """Put back what `read_moments` returned."""
        device = self.vector.device
        self._optimiser.state[self._leaf] = {name: value.to(device) for name, value in moments.items()}

    def release(self) -> None:
        """Give each parameter its own memory again and drop gradients and moments."""
        for parameter in self._parameters:
            parameter.data = parameter.data.clone()
            parameter.grad = None
        self._parameters = []
        self._optimiser.state.clear()
        self._leaf.grad = None
