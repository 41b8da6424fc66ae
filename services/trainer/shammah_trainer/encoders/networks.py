"""The networks of router, validator and embedder: what goes into a graph.

Heads have a fixed capacity of category slots, so a new category changes weights and never the graph. The networks know
no text, no files and no training.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from shammah_chassis.neighbours import NEIGHBOUR_FEATURES
from torch import Tensor, nn

from shammah_trainer.encoders.bert import BertBody, attention_bias, pool_mean, unit_vectors

CAPACITY = 64
"""Category slots of a version. The graph is made for it; more categories are refused."""
PROTOTYPES = 8
"""Centroids of one category: a category such as "reviews" has no single centre."""
STATISTICS = 10
"""Generation statistics of a response, in the order of `shammah_generator.statistics.FEATURES`."""
TEXT_SCORES = ("on_topic", "coherence", "hallucination")
CLIP = 4.0
"""Standard deviations at which a standardised feature of the quality head is cut off."""
MEMBERS = 5
"""Small networks of a quality head that are averaged."""
HIDDEN = 24
"""Units of each of them."""
NEIGHBOURS = len(NEIGHBOUR_FEATURES)
_CLOSED = -1e9
NO_PROTOTYPE = -2.0
"""Added to the cosine of a prototype that isn't in use: it is never the nearest."""


class Embedder(nn.Module):  # type: ignore[misc]
    """Mean-pooled unit vectors of the unchanged base encoder."""

    def __init__(self, body: BertBody) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Map int64 `[B, S]` each to `embedding` `[B, D]`."""
        return unit_vectors(pool_mean(self.body(input_ids, attention_mask, token_type_ids), attention_mask))


class RouterNetwork(nn.Module):  # type: ignore[misc]
    """P(local is good), category probabilities and how near the query is to what a category has seen."""

    def __init__(self, body: BertBody) -> None:
        super().__init__()
        size = body.shape.hidden_size
        self.body = body
        self.category = nn.Linear(size, CAPACITY)
        self.local = nn.Linear(size + CAPACITY, 1)
        self.register_buffer("slots", torch.full((CAPACITY,), _CLOSED))
        self.register_buffer("prototypes", torch.zeros(CAPACITY, PROTOTYPES, size))
        self.register_buffer("prototype_bias", torch.full((CAPACITY, PROTOTYPES), NO_PROTOTYPE))
        self.register_buffer("nearness_floor", torch.zeros(CAPACITY))
        for head in (self.category, self.local):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def open_slots(self, count: int) -> None:
        """Let the first `count` categories be answered; the others get probability 0."""
        slots = torch.full((CAPACITY,), _CLOSED)
        slots[:count] = 0.0
        self.slots = slots

    def embed(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Map int64 `[B, S]` each to unit vectors `[B, D]`."""
        return unit_vectors(pool_mean(self.body(input_ids, attention_mask, token_type_ids), attention_mask))

    def judge(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map `[B, D]` to local probability `[B]`, category probabilities and nearness, `[B, CAPACITY]` each.

        Nearness is the cosine to the nearest prototype of the category less the category's floor: below 0 means that
        the query is unlike all that the category was learned from.
        """
        probability = torch.softmax(self.category(embedding) + self.slots, dim=-1)
        local = torch.sigmoid(self.local(torch.cat([embedding, probability], dim=-1))).squeeze(-1)
        flat = self.prototypes.reshape(CAPACITY * PROTOTYPES, -1)
        cosine = torch.matmul(embedding, flat.transpose(0, 1)).reshape(-1, CAPACITY, PROTOTYPES) + self.prototype_bias
        return local, probability, cosine.amax(dim=-1) - self.nearness_floor

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return `embedding`, `local_probability`, `category_probability` and `nearness`."""
        embedding = self.embed(input_ids, attention_mask, token_type_ids)
        return (embedding, *self.judge(embedding))


class QualityHead(nn.Module):  # type: ignore[misc]
    """P(good) from standardised features: a linear part plus an average of small networks of one hidden layer.

    The average of their logits is one network with all their units, `narrow` already divided by `MEMBERS`. A head that
    is only a logistic regression has zeros there. Weights are set from outside.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("weight", torch.zeros(features))
        self.register_buffer("bias", torch.zeros(1))
        self.register_buffer("wide", torch.zeros(MEMBERS * HIDDEN, features))
        self.register_buffer("wide_bias", torch.zeros(MEMBERS * HIDDEN))
        self.register_buffer("narrow", torch.zeros(MEMBERS * HIDDEN))

    def forward(self, features: Tensor) -> Tensor:
        """Map raw features `[B, F]` to probabilities `[B]`."""
        standard = ((features - self.mean) / self.scale).clamp(-CLIP, CLIP)
        hidden = torch.relu(torch.matmul(standard, self.wide.transpose(0, 1)) + self.wide_bias)
        return torch.sigmoid((standard * self.weight).sum(dim=-1) + (hidden * self.narrow).sum(dim=-1) + self.bias)


class ValidatorNetwork(nn.Module):  # type: ignore[misc]
    """Judges (query, response): three text scores, and quality from all that is known of the response.

    The upper `tuned_layers` layers exist twice: `body` keeps the base for the embedder, `tuned` learns.
    """

    def __init__(self, body: BertBody, *, tuned_layers: int) -> None:
        super().__init__()
        self.body = body
        self.shared_layers = len(body.layers) - tuned_layers
        self.tuned = copy.deepcopy(body.layers[self.shared_layers :])
        self.text = nn.Linear(body.shape.hidden_size, len(TEXT_SCORES))
        nn.init.zeros_(self.text.weight)
        nn.init.zeros_(self.text.bias)
        features = NEIGHBOURS + len(TEXT_SCORES) + 1 + CAPACITY
        self.quality_text = QualityHead(features)
        self.quality_full = QualityHead(STATISTICS + features)

    def text_logits(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Map int64 `[B, S]` each to the logits `[B, 3]` of `TEXT_SCORES`."""
        hidden = self.body.lower(ids, mask, types, layers=self.shared_layers)
        return self.text_logits_from(hidden, mask)

    def text_logits_from(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Continue `text_logits` from the output `[B, S, D]` of the shared layers."""
        bias = attention_bias(mask)
        for layer in self.tuned:
            hidden = layer(hidden, bias)
        return cast("Tensor", self.text(pool_mean(hidden, mask)))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        statistics: Tensor,
        has_statistics: Tensor,
        category: Tensor,
        neighbours: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return `quality` `[B]` and `text_logits` `[B, 3]`.

        `statistics` `[B, 10]`, `has_statistics` `[B]` of 0 or 1, `category` `[B, CAPACITY]` one-hot and `neighbours`
        `[B, NEIGHBOURS]` are floats.
        """
        logits = self.text_logits(input_ids, attention_mask, token_type_ids)
        length = (token_type_ids * attention_mask).sum(dim=1)
        text = torch.cat([neighbours, text_features(logits, length, category)], dim=-1)
        without = self.quality_text(text)
        with_statistics = self.quality_full(torch.cat([signed_log(statistics), text], dim=-1))
        return torch.where(has_statistics > 0, with_statistics, without), logits


def signed_log(values: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|): sums of log-probabilities and lengths span orders of magnitude."""
    return torch.sign(values) * torch.log1p(values.abs())


def text_features(logits: Tensor, length: Tensor, category: Tensor) -> Tensor:
    """Join text logits `[B, 3]`, response length in tokens `[B]` and category `[B, C]` into `[B, 4 + C]`."""
    return torch.cat([logits, signed_log(length.to(logits.dtype)).unsqueeze(-1), category], dim=-1)
