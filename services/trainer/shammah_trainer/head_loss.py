"""The loss of the head in chunks: the logits of all learned positions never exist at once.

Loss and gradients of a chunk are computed together, while its logits are there (as Liger's fused linear cross-entropy
does); the vocabulary is by far the widest product of a small model. It knows tensors only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SoftmaxStep = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def softmax_step(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of the cross-entropies of `logits` `[N, V]`, and its gradient by the logits."""
    logits = logits.float()
    norm = torch.logsumexp(logits, dim=-1, keepdim=True)
    chosen = logits.gather(1, targets[:, None])
    loss = ((norm - chosen).squeeze(1) * weights).sum()
    gradient = torch.exp(logits - norm) * weights[:, None]
    return loss, gradient.scatter_add(1, targets[:, None], -weights[:, None])


class HeadLoss(torch.autograd.Function):  # type: ignore[misc]
    """Weighted cross-entropy of `hidden @ weight.T`; the gradients are ready when the loss is."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch has no type for it
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        chunk: int,
        softmax: SoftmaxStep,
    ) -> Tensor:
        """Return the loss, float32. `hidden` `[N, H]` has the type of the products; `weight` `[V, H]` any."""
        wide = weight.to(hidden.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        down = torch.empty_like(hidden)
        across = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            states = hidden[part]
            loss, gradient = softmax(states @ wide.t(), targets[part], weights[part])
            gradient = gradient.to(hidden.dtype)
            total += loss
            down[part] = gradient @ wide
            if across is not None:
                across += gradient.t() @ states
        ctx.save_for_backward(down, across)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        """Scale the gradients that the forward pass left."""
        down, across = ctx.saved_tensors
        scaled = None if across is None else across * upstream[0]
        return down * upstream[0].to(down.dtype), scaled, None, None, None, None


def measure_tokens(hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each target, float32 `[N]`, and whether it is the likeliest id, bool `[N]`.

    Without gradients.
    """
    wide = weight.to(hidden.dtype)
    losses, hits = [], []
    for start in range(0, len(hidden), chunk):
        part = slice(start, start + chunk)
        logits = (hidden[part] @ wide.t()).float()
        losses.append(torch.nn.functional.cross_entropy(logits, targets[part], reduction="none"))
        hits.append(logits.argmax(dim=-1) == targets[part])
    if not losses:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.bool)
    return torch.cat(losses), torch.cat(hits)
