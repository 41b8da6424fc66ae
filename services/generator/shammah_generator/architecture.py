"""What a Llama-family decoder looks like, read from its Hugging Face `config.json`.

This module knows numbers, not weights and not ONNX: it turns the config into one checked value and computes the rotary
tables. Anything the graph could not compute faithfully (a bias, another activation, an unknown rope) is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from shammah_chassis.errors import ArtifactError

from shammah_generator.arrays import Array


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shapes and constants of a decoder; sizes in elements."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int
    rms_eps: float
    tied: bool
    rope: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face Llama config.

        Raises:
            ArtifactError: a key is missing, or the config asks for something that the graph does not compute.
        """
        _refuse_unsupported(config)
        try:
            heads = int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
            made = cls(
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                intermediate=int(config["intermediate_size"]),
                vocab=int(config["vocab_size"]),
                max_positions=int(config["max_position_embeddings"]),
                rms_eps=float(config["rms_norm_eps"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                rope=_read_rope(config),
            )
        except KeyError as error:
            raise ArtifactError(f"the generator config has no {error.args[0]!r}") from error
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"the generator config has a size that is no number: {error}") from error
        if made.heads % made.kv_heads or made.head_dim % 16 or made.hidden % 32:
            raise ArtifactError(
                f"hidden size {made.hidden}, {made.heads} heads, {made.kv_heads} kv heads of {made.head_dim}: heads "
                "must be a multiple of kv heads, the head size of 16 and the hidden size of 32"
            )
        return made

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    def compute_rotary_tables(self) -> tuple[Array, Array]:
        """Return cos and sin, each float32 `[max_positions, head_dim / 2]`.

        The angles are computed in float32 like Hugging Face does, so that late positions round alike.
        """
        exponent = np.arange(0, self.head_dim, 2, dtype=np.float32) / np.float32(self.head_dim)
        frequency = (1.0 / np.float32(self.rope["rope_theta"]) ** exponent).astype(np.float32)
        frequency = _scale_frequencies(frequency, self.rope)
        angles = np.outer(np.arange(self.max_positions, dtype=np.float32), frequency)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Refuse what would silently give other logits."""
    for key, allowed in {"model_type": "llama", "hidden_act": "silu"}.items():
        if config.get(key, allowed) != allowed:
            raise ArtifactError(f"{key} is {config[key]!r}; this generator serves {allowed!r} only")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise ArtifactError(f"{key} is set; this generator serves models without biases")


def _read_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Bring both spellings (`rope_parameters` since transformers 5, before it `rope_theta` + `rope_scaling`) to one."""
    rope = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        raise ArtifactError(f"rope type {rope['rope_type']!r} is not served; allowed: default, linear, llama3")
    return rope


def _scale_frequencies(frequency: Array, rope: Mapping[str, Any]) -> Array:
    """Apply the rope scaling, as in transformers `modeling_rope_utils` (linear, and Llama 3.1's by wavelength)."""
    if rope["rope_type"] == "default":
        return frequency
    factor = float(rope["factor"])
    if rope["rope_type"] == "linear":
        return (frequency / np.float32(factor)).astype(np.float32)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    old_context = float(rope["original_max_position_embeddings"])
    wavelength = 2 * math.pi / frequency
    smooth = np.clip((old_context / wavelength - low) / (high - low), 0.0, 1.0)
    return ((1 - smooth) * frequency / factor + smooth * frequency).astype(np.float32)
