"""The BERT encoder as a plain torch module: embeddings, layers, mean pooling.

Written out here, and not taken from transformers, for three reasons: lower layers can run alone under no_grad, the
export traces no library code, and parameter names are ours, so weights can be put into an exported graph by name.
A test holds it equal to `transformers.BertModel`. It knows no heads, no labels and no files but `load_hugging_face`.
Source of the architecture: Devlin et al. 2018, https://arxiv.org/abs/1810.04805.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from shammah_chassis.errors import ArtifactError
from shammah_chassis.manifest import load_json
from torch import Tensor, nn

# Added to the score of a padded key; exp of it is 0 in float32, and it can't overflow as the lowest float could.
_MASKED = -1e9
_SMALLEST_NORM = 1e-12
_RENAMES = (
    ("encoder.layer.", "layers."),
    ("attention.self.", ""),
    ("attention.output.dense", "attended"),
    ("attention.output.LayerNorm", "attended_norm"),
    ("intermediate.dense", "wide"),
    ("output.dense", "narrow"),
    ("output.LayerNorm", "norm"),
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "types"),
    ("embeddings.LayerNorm", "norm"),
)


@dataclass(frozen=True, slots=True)
class BertShape:
    """Sizes of an encoder, by the names of a Hugging Face `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BertShape:
        """Take the sizes out of a Hugging Face config.

        Raises:
            ArtifactError: not a BERT with gelu and absolute positions, or a size is missing.
        """
        wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in wanted.items():
            if config.get(key, value) != value:
                raise ArtifactError(f"encoder config has {key} {config[key]!r}; allowed is {value!r}")
        try:
            shape = cls(**{name: config[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise ArtifactError(f"encoder config lacks {error}") from error
        if shape.hidden_size % shape.num_attention_heads:
            raise ArtifactError(
                f"hidden_size {shape.hidden_size} isn't a multiple of {shape.num_attention_heads} heads"
            )
        return shape

    def to_config(self) -> dict[str, Any]:
        """Return the sizes as JSON values, readable by `from_config`."""
        return {"model_type": "bert", **asdict(self)}


class BertLayer(nn.Module):  # type: ignore[misc]
    """One transformer layer, normalised after each half (post-norm)."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.attended = nn.Linear(size, size)
        self.attended_norm = nn.LayerNorm(size, eps=shape.layer_norm_eps)
        self.wide = nn.Linear(size, shape.intermediate_size)
        self.narrow = nn.Linear(shape.intermediate_size, size)
        self.norm = nn.LayerNorm(size, eps=shape.layer_norm_eps)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Map `[B, S, D]` to `[B, S, D]`; `bias` `[B, 1, 1, S]` is added to the attention scores."""
        batch, length, size = hidden.shape
        split = (batch, length, self.heads, size // self.heads)
        query = self.query(hidden).view(split).transpose(1, 2)
        key = self.key(hidden).view(split).permute(0, 2, 3, 1)
        value = self.value(hidden).view(split).transpose(1, 2)
        scores = torch.matmul(query, key) / math.sqrt(size // self.heads) + bias
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
        mixed = mixed.transpose(1, 2).reshape(batch, length, size)
        hidden = self.attended_norm(hidden + self.attended(mixed))
        return self.norm(hidden + self.narrow(nn.functional.gelu(self.wide(hidden))))  # type: ignore[no-any-return]


class BertBody(nn.Module):  # type: ignore[misc]
    """Embeddings and layers. No dropout: the frozen body never trains and the upper layers train for one pass."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.positions = nn.Embedding(shape.max_position_embeddings, shape.hidden_size)
        self.types = nn.Embedding(shape.type_vocab_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.layers = nn.ModuleList(BertLayer(shape) for _ in range(shape.num_hidden_layers))

    def lower(self, ids: Tensor, mask: Tensor, types: Tensor, *, layers: int) -> Tensor:
        """Run the embeddings and the first `layers` layers: int64 `[B, S]` each to float `[B, S, D]`."""
        hidden = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types(types)
        hidden = self.norm(hidden)
        bias = attention_bias(mask)
        for layer in self.layers[:layers]:
            hidden = layer(hidden, bias)
        return hidden  # type: ignore[no-any-return]

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Run all layers: int64 `[B, S]` each to float `[B, S, D]`."""
        return self.lower(ids, mask, types, layers=len(self.layers))


def attention_bias(mask: Tensor) -> Tensor:
    """Turn an attention mask `[B, S]` of 0 and 1 into the additive bias `[B, 1, 1, S]` of the layers."""
    return (1.0 - mask.to(torch.float32))[:, None, None, :] * _MASKED


def pool_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Average `[B, S, D]` over the tokens that are no padding: `[B, D]`."""
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Scale the rows of `[B, D]` to length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=_SMALLEST_NORM)


def load_hugging_face(folder: Path) -> BertBody:
    """Load the body from a Hugging Face folder (`config.json`, `model.safetensors`); a pooler is left out.

    Raises:
        ArtifactError: another architecture, or a weight is missing or of a wrong shape.
    """
    body = BertBody(BertShape.from_config(load_json(folder / "config.json")))
    try:
        stored = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}/model.safetensors can't be read: {error}") from error
    renamed: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        short = name.removeprefix("bert.")
        if short.startswith(("pooler.", "cls.")) or short.endswith("position_ids"):
            continue
        for old, new in _RENAMES:
            short = short.replace(old, new)
        renamed[short] = tensor.to(torch.float32)
    try:
        body.load_state_dict(renamed)
    except RuntimeError as error:
        raise ArtifactError(f"{folder}: weights don't fit the config: {error}") from error
    body.eval()
    return body
