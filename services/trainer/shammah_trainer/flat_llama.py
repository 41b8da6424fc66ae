"""A Llama-family decoder computed over packed rows: one long line of tokens, no padding, no mask.

The weights are the modules of transformers' model, by reference: what is learned here is learned there. Weights stay
float32; products run in `dtype`, the residual stream in float32, as under autocast. One thing differs: transformers
never trains the input embedding of the padding id, here the end-of-turn id; without padding there is no reason not to.
It knows no loss and no optimiser.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, silu

from shammah_trainer.attention import Attention, attend

if TYPE_CHECKING:
    from shammah_trainer.student import Network  # transformers takes seconds to load; see cache_filling

BlockWeights = tuple[Tensor, ...]
Block = Callable[..., Tensor]


class Geometry(NamedTuple):
    """Constants of a block; `longest` is the longest segment of a bin. A tuple, because torch.compile reads these."""

    heads: int
    kv_heads: int
    size: int
    eps: float
    longest: int
    dtype: torch.dtype
    way: Attention


@dataclass(frozen=True, slots=True, eq=False)
class Bin:
    """One filled bin on its device; see `batches.Filled`."""

    ids: Tensor
    places: Tensor
    bounds: Tensor
    at: Tensor
    targets: Tensor
    weights: Tensor


def run_block(x: Tensor, cos: Tensor, sin: Tensor, bounds: Tensor, weights: BlockWeights, shape: Geometry) -> Tensor:
    """Return the residual stream after one block, float32 `[T, H]`. A pure function, so one compilation serves all."""
    norm_in, query, key, value, out, norm_post, gate, up, down = weights
    dtype = shape.dtype
    narrow = rms_norm(x, (x.shape[-1],), norm_in, shape.eps).to(dtype)
    joined = linear(narrow, torch.cat((query, key, value)).to(dtype))
    turned, v = joined.view(len(x), -1, shape.size).split((shape.heads + shape.kv_heads, shape.kv_heads), dim=1)
    q, k = _rotate(turned, cos, sin).split((shape.heads, shape.kv_heads), dim=1)
    made = attend(q, k, v, bounds, longest=shape.longest, way=shape.way)
    x = x + linear(made, out.to(dtype))
    narrow = rms_norm(x, (x.shape[-1],), norm_post, shape.eps).to(dtype)
    gated, plain = linear(narrow, torch.cat((gate, up)).to(dtype)).chunk(2, dim=-1)
    return x + linear(silu(gated) * plain, down.to(dtype))


class FlatLlama:
    """The forward pass of a `LlamaForCausalLM` over bins."""

    def __init__(self, model: Network, *, dtype: torch.dtype, way: Attention, longest: int) -> None:
        """`longest`: no segment of any bin is longer; `way`: how attention is computed."""
        config = model.config
        heads = int(config.num_attention_heads)
        self.geometry = Geometry(
            heads=heads,
            kv_heads=int(config.num_key_value_heads or heads),
            size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            eps=float(config.rms_norm_eps),
            longest=longest,
            dtype=dtype,
            way=way,
        )
        self.model = model
        self._cos, self._sin = _compute_rotary(model, longest)

    def compute_states(self, batch: Bin, block: Block = run_block) -> Tensor:
        """Return the normed states that predict the learned ids, `dtype` `[N, H]`."""
        body = self.model.model
        x = embedding(batch.ids, body.embed_tokens.weight)
        cos, sin = (table.index_select(0, batch.places)[:, None] for table in (self._cos, self._sin))
        for layer in body.layers:
            x = block(x, cos, sin, batch.bounds, read_weights(layer), self.geometry)
        x = x.index_select(0, batch.at)
        return rms_norm(x, (x.shape[-1],), body.norm.weight, self.geometry.eps).to(self.geometry.dtype)

    def of_model(self, model: Network) -> FlatLlama:
        """Return the same forward pass for other weights of the same shapes."""
        other = copy.copy(self)
        other.model = model
        return other

    @property
    def head(self) -> Tensor:
        """The weight of the head, float32 `[V, H]` (the embedding when they are tied)."""
        weight: Tensor = self.model.lm_head.weight
        return weight


def read_weights(layer: Network) -> BlockWeights:
    """Return the nine weights of a block in the order of `run_block`."""
    attention, mlp = layer.self_attn, layer.mlp
    return (
        layer.input_layernorm.weight,
        *(_effective(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)),
        layer.post_attention_layernorm.weight,
        *(_effective(part) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)),
    )


def _effective(module: Network) -> Tensor:
    """Return the weight that a linear module stands for; for peft's LoRA modules the base and what is learned on it."""
    if hasattr(module, "base_layer"):
        base: Tensor = module.base_layer.weight
        for name in module.active_adapters:
            base = base + module.get_delta_weight(name)
        return base
    weight: Tensor = module.weight
    return weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `[T, heads, size]` by its places (Su et al. 2021), the halves paired as in transformers' Llama.

    The tables are float32, and so are the products: a copy of `x` as float32 would only be written and read again.
    """
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).to(x.dtype)


def _compute_rotary(model: Network, longest: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin, each float32 `[longest, size / 2]`, by the model's own rotary module."""
    weight = model.model.embed_tokens.weight
    places = torch.arange(longest, device=weight.device)[None]
    with torch.no_grad():
        cos, sin = model.model.rotary_emb(weight[:1, None].float(), position_ids=places)
    half = cos.shape[-1] // 2
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
