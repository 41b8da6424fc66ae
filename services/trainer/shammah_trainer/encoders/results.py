"""Values that go into and come out of the training of router and validator. No torch, no files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shammah_chassis.encoder import Precision
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.text import normalise_query

from shammah_trainer.encoders.networks import CAPACITY

_HELD_OUT_OF_TEN = 2


@dataclass(frozen=True, slots=True)
class RouterRow:
    """A query of a category. `local_good` tells how a graded dev rollout on it went, None where there is none."""

    query: str
    category: str
    local_good: bool | None = None


@dataclass(frozen=True, slots=True)
class TextRow:
    """A teacher's response to a query: a positive of the text stage."""

    query: str
    response: str
    category: str


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A train example that may stand in the index; `id` is that of the example."""

    id: str
    query: str
    response: str
    category: str


@dataclass(frozen=True, slots=True)
class GradedRow:
    """A graded dev rollout of the student. `statistics` are the 10 generation statistics."""

    query: str
    response: str
    category: str
    statistics: Sequence[float]
    good: bool


@dataclass(frozen=True, slots=True)
class RouterHyper:
    """Settings of a router round."""

    category_floor: float = 0.5
    """Probability under which the category is ""."""
    category_penalty: float = 0.1
    """L2 penalty of the category head on the sum of losses; small, because unit vectors need large weights."""
    nearness_quantile: float = 0.01
    """Share of a category's own cross-fitted queries that may fall under its nearness floor, before the margin."""
    nearness_margin: float = 0.05
    """Cosine by which the floor is lowered: a few hundred rows don't show the edge of a category."""
    precision: Precision = "int8"
    """How the version is calibrated and served. The router only saves work; what is good enough the validator says."""


@dataclass(frozen=True, slots=True)
class ValidatorHyper:
    """Settings of a validator round."""

    layers: int = 2
    """Upper layers that train, at most those that the version keeps twice; 0 trains the heads only."""
    max_pairs: int = 800
    """Pairs of the text stage, made negatives included."""
    max_seconds: float = 40.0
    """Time after which the text stage starts no further batch."""
    learning_rate: float = 3e-4
    head_learning_rate: float = 5e-3
    batch_rows: int = 16
    batch_tokens: int = 2048
    """Padded tokens of a batch at most."""
    index_rows: int = 2000
    """Train examples of one category in the index at most; 0 leaves the version without an index."""


@dataclass(frozen=True, slots=True)
class RoleResult:
    """What a round made of one role.

    Losses are mean log losses in nats on rows that the training did not see: see the function that made it. `config`
    and `labels` belong into the manifest, `hyper` and `metrics` too. `fitted`: of each graded row, in their order, the
    probability that it is good by a fit of the head that had not seen it; None where there is no such fit.
    """

    loss_before: float
    loss_after: float
    config: dict[str, Any]
    labels: tuple[str, ...]
    hyper: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    fitted: tuple[float, ...] | None = None


def is_held_out(query: str) -> bool:
    """Tell whether a query is in the fixed fifth that only measures and never trains.

    By hash of the normalised query, so it is the same fifth in every round and no parent has trained on it.
    """
    digest = hashlib.sha256(b"held out:" + normalise_query(query).encode()).digest()
    return digest[0] % 10 < _HELD_OUT_OF_TEN


def fold_of(query: str, folds: int) -> int:
    """Put a query into one of `folds` folds by hash, so that equal queries share one."""
    digest = hashlib.sha256(b"fold:" + normalise_query(query).encode()).digest()
    return int.from_bytes(digest[:4], "big") % folds


def extend_labels(known: Sequence[str], categories: Sequence[str]) -> tuple[str, ...]:
    """Append new categories in alphabetical order; a known label keeps its slot for ever. "" is no category.

    Raises:
        InvalidInputError: more categories than a version has slots.
    """
    labels = (*known, *sorted({category for category in categories if category} - set(known)))
    if len(labels) > CAPACITY:
        raise InvalidInputError(f"{len(labels)} categories; a version has slots for at most {CAPACITY}")
    return labels
