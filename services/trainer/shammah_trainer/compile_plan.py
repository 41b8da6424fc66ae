"""What compiling a training's blocks depends on, as plain values: enough to compile the same in another process.

The compiler's caches are keyed by graphs, shapes, strides, types, devices and what learns, not by weights or ids: those
are made up here. It knows the flat model, no process and no cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shammah_trainer import attention, flat_llama, head_loss
from shammah_trainer.batches import BinShape
from shammah_trainer.flat_llama import Bin, FlatLlama, Geometry, read_weights

if TYPE_CHECKING:
    from shammah_trainer.student import Network  # transformers takes seconds to load; see cache_filling

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
_WIDENINGS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Weight:
    """A float32 weight without its values. `own`: a parameter, not something computed from several (LoRA)."""

    shape: tuple[int, ...]
    learns: bool
    own: bool


@dataclass(frozen=True, slots=True)
class CompilePlan:
    """One compilation: `kinds` are the nine weights of each block that is compiled apart; `head` None: tied to `words`.

    `chunk`: learned ids whose logits exist at once. `threads` and `precision` (of float32 products) are the process';
    the caches tell apart even a precision that was never set ("none") from the same one set.
    """

    device: str
    geometry: Geometry
    shape: BinShape
    chunk: int
    words: Weight
    head: Weight | None
    norm: Weight
    kinds: tuple[tuple[Weight, ...], ...]
    threads: int
    precision: str

    def digest(self) -> str:
        """Return hexadecimal digits that differ when something else would be compiled: plan, code, torch or device."""
        facts = [repr(self), torch.__version__]
        facts += [Path(str(module.__file__)).read_text("utf-8") for module in (attention, flat_llama, head_loss)]
        if self.device.startswith("cuda"):
            facts.append(str(torch.cuda.get_device_properties(self.device)))
        return sha256("\n".join(facts).encode()).hexdigest()


def describe(flat: FlatLlama, shape: BinShape, *, chunk: int) -> CompilePlan:
    """Return the plan of the compilation that bins of `shape` of this model need."""
    model = flat.model
    body = model.model
    tied = flat.head is body.embed_tokens.weight
    return CompilePlan(
        device=str(body.embed_tokens.weight.device),
        geometry=flat.geometry,
        shape=shape,
        chunk=chunk,
        words=_describe(body.embed_tokens.weight),
        head=None if tied else _describe(flat.head),
        norm=_describe(body.norm.weight),
        kinds=tuple(tuple(_describe(weight) for weight in read_weights(layer)) for layer in choose_kinds(model)),
        threads=torch.get_num_threads(),
        precision=str(getattr(torch.backends.cuda.matmul, "fp32_precision", "")),
    )


def choose_kinds(model: Network) -> list[Network]:
    """Return one block of each kind that is compiled apart, in order.

    The kinds differ in whether a block's weights learn and whether anything below it does.
    """
    body = model.model
    below = bool(body.embed_tokens.weight.requires_grad)
    kinds: dict[tuple[bool, tuple[bool, ...]], Network] = {}
    for layer in body.layers:
        own = tuple(weight.requires_grad for weight in read_weights(layer))
        kinds.setdefault((below, own), layer)
        below = below or any(own)
    return list(kinds.values())


def make_flat(plan: CompilePlan) -> FlatLlama:
    """Return a flat model of the plan's blocks alone; all weights are small and alike."""
    size, geometry = plan.geometry.size, plan.geometry

    def turn(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        table = x.new_ones((1, position_ids.shape[1], size))
        return table, table

    words = _make(plan.words, plan.device)
    head = words if plan.head is None else _make(plan.head, plan.device)
    body = SimpleNamespace(
        embed_tokens=SimpleNamespace(weight=words),
        layers=[_make_layer(kind, plan.device) for kind in plan.kinds],
        norm=SimpleNamespace(weight=_make(plan.norm, plan.device)),
        rotary_emb=turn,
    )
    config = SimpleNamespace(
        num_attention_heads=geometry.heads,
        num_key_value_heads=geometry.kv_heads,
        head_dim=size,
        rms_norm_eps=geometry.eps,
    )
    model = SimpleNamespace(model=body, lm_head=SimpleNamespace(weight=head), config=config)
    return FlatLlama(model, dtype=geometry.dtype, way=geometry.way, longest=geometry.longest)


def make_bin(plan: CompilePlan) -> Bin:
    """Return a bin of the plan's shape, laid out in memory as `Passes` lays it out; its segments are of one length."""
    shape = plan.shape
    sizes = bin_sizes(shape)
    buffer = torch.zeros(sum(sizes), dtype=torch.int32, device=plan.device)
    each = -(-shape.tokens // shape.segments)
    ends = (torch.arange(shape.segments + 1, dtype=torch.int32) * each).clamp(max=shape.tokens)
    buffer.split(sizes)[2].copy_(ends)
    return view_bin(buffer, shape)


def bin_sizes(shape: BinShape) -> list[int]:
    """Return how many of a buffer's numbers each field of a `Bin` takes, in their order."""
    return [shape.tokens, shape.tokens, shape.segments + 1, shape.labels, shape.labels, shape.labels]


def view_bin(buffer: Tensor, shape: BinShape) -> Bin:
    """Return the bin that lies in an int32 buffer."""
    ids, places, bounds, at, targets, weights = buffer.split(bin_sizes(shape))
    return Bin(ids, places, bounds, at, targets, weights.view(torch.float32))


def _describe(weight: Tensor) -> Weight:
    return Weight(tuple(weight.shape), bool(weight.requires_grad), isinstance(weight, torch.nn.Parameter))


def _make(weight: Weight, device: str) -> Tensor:
    values = torch.full(weight.shape, 0.01, dtype=torch.float32, device=device)
    if weight.own:
        return torch.nn.Parameter(values, requires_grad=weight.learns)
    return values.requires_grad_(weight.learns)


def _make_layer(kind: tuple[Weight, ...], device: str) -> Network:
    norm_in, *products, norm_post, gate, up, down = (SimpleNamespace(weight=_make(weight, device)) for weight in kind)
    return SimpleNamespace(
        input_layernorm=norm_in,
        self_attn=SimpleNamespace(**dict(zip(_PROJECTIONS, products, strict=True))),
        post_attention_layernorm=norm_post,
        mlp=SimpleNamespace(**dict(zip(_WIDENINGS, (gate, up, down), strict=True))),
    )
