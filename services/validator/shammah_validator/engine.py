"""Judge responses: quality, its uncertainty, and the three text scores.

Plain values in and out. It knows neither transport, releases nor thresholds; what quality is enough is the gateway's
affair.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shammah_chassis.encoder import EMBEDDER_NAME, EncoderSession
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.manifest import Manifest
from shammah_chassis.neighbours import INDEX_NAME, NeighbourFinder

DEFAULT_MAX_TOKENS = 512
NEWEST_FORMAT = 2
"""Newest "format" of a validator's config that this program serves; a version that names none has format 1."""
STATISTICS = 10
"""Length of `ValidateItem.statistics`: sum, mean, minimum and first log-probability, length, entropy mean and maximum,
margin minimum and mean, prompt tokens (the order of `shammah_generator.statistics.FEATURES`)."""


@dataclass(frozen=True, slots=True)
class ValidateItem:
    """One response to judge. `category` is "" when unknown; `statistics` is None for a text of another author."""

    query: str
    response: str
    category: str = ""
    statistics: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Validation:
    """What the validator says of one response; all values are 0 to 1.

    `uncertainty` is the binary entropy of `quality` in bits; `truncated` when query and response together had more
    tokens than the validator reads.
    """

    quality: float
    uncertainty: float
    on_topic: float
    coherence: float
    hallucination: float
    truncated: bool


class ValidatorEngine:
    """One loaded validator version. Safe to use from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 1) -> None:
        """Load a verified version folder and judge one probe pair.

        A version of format 1 has no index of train examples and is served without.

        Raises:
            ArtifactError: another role, a newer format, an unreadable graph, an index that is missing or unreadable,
                or more labels than the version has slots.
        """
        if manifest.role != "validator":
            raise ArtifactError(f"version {manifest.version} was made for role {manifest.role}, wanted validator")
        known = int(manifest.config.get("format", 1))
        if known > NEWEST_FORMAT:
            raise ArtifactError(
                f"version {manifest.version} has validator format {known}; this program serves up to {NEWEST_FORMAT}"
            )
        self._folder = folder
        self._threads = threads
        self._capacity = int(manifest.config.get("capacity", 0))
        self._max_tokens = int(manifest.config.get("max_tokens", DEFAULT_MAX_TOKENS))
        if len(manifest.labels) > self._capacity:
            raise ArtifactError(
                f"version {manifest.version} has {len(manifest.labels)} labels for {self._capacity} slots"
            )
        self._slots = {label: slot for slot, label in enumerate(manifest.labels)}
        self._neighbours = NeighbourFinder(folder, threads=threads)
        if int(manifest.config.get("index_rows", 0)) != self._neighbours.rows:
            raise ArtifactError(f"version {manifest.version} was made with another {INDEX_NAME} than it has")
        self._session = EncoderSession(folder, threads=threads, max_tokens=self._max_tokens)
        self._embedder: EncoderSession | None = None
        self._embedder_lock = threading.Lock()
        # The label makes the probe ask the index too, where there is one.
        probe = self._neighbours.index.categories[0] if self._neighbours.index else ""
        self.validate([ValidateItem("What is the capital of France?", "Paris", probe)])

    @property
    def resident_bytes(self) -> int:
        """Bytes of the loaded files; the embedder's weights are the same file and count once."""
        return self._session.resident_bytes + self._neighbours.resident_bytes

    def validate(self, items: Sequence[ValidateItem]) -> list[Validation]:
        """Judge each item; an empty response has quality 0 and no further merit.

        Raises:
            InvalidInputError: no item, an empty query, or statistics that aren't 10 finite numbers.
            ArtifactError: the graph gave a value that is no number.
        """
        encoded = self._session.run([(item.query, item.response) for item in items], self._gather(items))
        quality = encoded.outputs["quality"].astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(-encoded.outputs["text_logits"].astype(np.float64)))
        if not (np.isfinite(quality).all() and np.isfinite(scores).all()):
            raise ArtifactError("the validator's graph gave a value that is no number")
        return [
            _describe(float(quality[row]), scores[row], truncated=truncated)
            if items[row].response.strip()
            else Validation(0.0, 0.0, 0.0, 0.0, 0.0, truncated)
            for row, truncated in enumerate(encoded.truncated)
        ]

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors `[n, d]` of the unchanged base encoder, the same that the router's graph gives.

        The embedder is loaded at the first call: only comparisons need it.

        Raises:
            ArtifactError: the version has no readable embedder.
        """
        with self._embedder_lock:
            if self._embedder is None:
                self._embedder = EncoderSession(
                    self._folder, threads=self._threads, max_tokens=self._max_tokens, graph=EMBEDDER_NAME
                )
            embedder = self._embedder
        return embedder.embed(texts)

    def close(self) -> None:
        """Let the graphs go; later calls fail."""
        self._session.close()
        self._neighbours.close()
        with self._embedder_lock:
            if self._embedder is not None:
                self._embedder.close()

    def _gather(self, items: Sequence[ValidateItem]) -> dict[str, npt.NDArray[np.generic]]:
        statistics = np.zeros((len(items), STATISTICS), dtype=np.float32)
        present = np.zeros(len(items), dtype=np.float32)
        category = np.zeros((len(items), self._capacity), dtype=np.float32)
        for row, item in enumerate(items):
            if not item.query.strip():
                raise InvalidInputError("a query is empty; it needs at least one character that is no space")
            if item.statistics is not None:
                if len(item.statistics) != STATISTICS or not all(map(math.isfinite, item.statistics)):
                    raise InvalidInputError(f"statistics must be {STATISTICS} finite numbers")
                statistics[row] = item.statistics
                present[row] = 1.0
            slot = self._slots.get(item.category)
            if slot is not None:
                category[row, slot] = 1.0
        return {
            "statistics": statistics,
            "has_statistics": present,
            "category": category,
            "neighbours": self._neighbours.measure(
                [item.query for item in items], [item.category for item in items], [item.response for item in items]
            ),
        }


def _describe(quality: float, scores: npt.NDArray[np.float64], *, truncated: bool) -> Validation:
    on_topic, coherence, hallucination = (float(score) for score in scores)
    return Validation(quality, binary_entropy(quality), on_topic, coherence, hallucination, truncated)


def binary_entropy(probability: float) -> float:
    """Return the entropy of a coin in bits: 1 at one half, 0 at 0 and 1."""
    if probability <= 0.0 or probability >= 1.0:
        return 0.0
    rest = 1.0 - probability
    return -probability * math.log2(probability) - rest * math.log2(rest)
