"""Causal attention over packed rows: no token sees another row. Three ways to compute the same.

`flash`: PyTorch's own flash kernel for ragged rows (CUDA, bf16). `padded`: rows spread over a padded grid for the usual
kernel (any device, fixed shapes). `rows`: one row after the other (best on a CPU, where rows of a batch are few).
It knows tensors, no model.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attention = Literal["flash", "padded", "rows"]


def attend(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, *, longest: int, way: Attention) -> Tensor:
    """Return `[T, heads * size]` for `query` `[T, heads, size]` and `key`, `value` `[T, kv heads, size]`.

    `bounds` int32 `[S+1]`: segment s is `bounds[s]:bounds[s+1]`; together they cover all T. No segment is longer than
    `longest`.
    """
    if way == "flash":
        made: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, bounds, bounds, longest, longest, 0.0, True, False
        )[0]
        return made.flatten(1)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if way == "padded":
        return _attend_padded(query, key, value, bounds, longest)
    lengths = torch.diff(bounds).tolist()
    parts = zip(*(part.transpose(0, 1).split(lengths, dim=1) for part in (query, key, value)), strict=True)
    # Heads stay the first dimension until the end, as the kernel wants them.
    found = [scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0] for q, k, v in parts]
    return torch.cat(found, dim=1).transpose(0, 1).flatten(1)


def choose_attention(device: torch.device, dtype: torch.dtype, *, heads: int, kv_heads: int, size: int) -> Attention:
    """Return the best way on a device. The flash kernel is believed only after it agreed with the plain one."""
    if device.type != "cuda":
        return "rows"
    if dtype not in (torch.bfloat16, torch.float16):
        return "padded"
    try:
        return "flash" if _flash_agrees(device, dtype, heads, kv_heads, size) else "padded"
    except (RuntimeError, TypeError):  # not built in, or called otherwise in this version of PyTorch
        return "padded"


def _flash_agrees(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> bool:
    """Compare output and gradients on a few random rows, one of them empty."""
    generator = torch.Generator(device).manual_seed(0)
    bounds = torch.tensor([0, 5, 5, 38, 137], dtype=torch.int32, device=device)
    found = []
    tensors = [
        torch.randn((137, count, size), generator=generator, device=device, dtype=dtype)
        for count in (heads, kv_heads, kv_heads, heads)
    ]
    for way in ("flash", "padded"):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors[:3]]
        with torch.enable_grad():
            made = attend(leaves[0], leaves[1], leaves[2], bounds, longest=128, way=way)  # type: ignore[arg-type]
            (made * tensors[3].flatten(1)).sum().backward()
        found.append([made.detach(), *(leaf.grad for leaf in leaves)])
    pairs = zip(*found, strict=True)
    return all(torch.allclose(one.float(), two.float(), atol=0.06, rtol=0.06) for one, two in pairs)  # type: ignore[union-attr]


def _attend_padded(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    total, heads, size = query.shape
    segments = bounds.shape[0] - 1
    token = torch.arange(total, device=query.device, dtype=bounds.dtype)
    segment = torch.searchsorted(bounds, token, right=True) - 1
    slot = segment * longest + (token - bounds.index_select(0, segment))
    grid = [
        part.new_zeros(segments * longest, heads, size)
        .index_copy(0, slot, part)
        .view(segments, longest, heads, size)
        .transpose(1, 2)
        for part in (query, key, value)
    ]
    made = scaled_dot_product_attention(grid[0], grid[1], grid[2], is_causal=True)
    return made.transpose(1, 2).reshape(segments * longest, heads * size).index_select(0, slot)
