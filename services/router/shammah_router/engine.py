"""Judge queries: how probable is a good local answer, and what category is it.

Plain values in and out. It knows neither transport nor releases; a version folder and its manifest are all it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shammah_chassis.encoder import EncoderSession, precision_of
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.manifest import Manifest

DEFAULT_MAX_TOKENS = 256
DEFAULT_CATEGORY_FLOOR = 0.5
_PROBE = "What is the capital of France?"


@dataclass(frozen=True, slots=True, eq=False)
class RouteResult:
    """What the router says of one query.

    `category` is "" when no category is probable enough or the query is unlike all that the most probable category
    was learned from; `category_probability` is that of the most probable category either way. `embedding` is the unit
    vector `[d]` of the unchanged base encoder. `truncated`: only the first tokens were read.
    """

    local_probability: float
    category: str
    category_probability: float
    truncated: bool
    embedding: npt.NDArray[np.float32]


class RouterEngine:
    """One loaded router version. Safe to use from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 1) -> None:
        """Load a verified version folder and route one probe query.

        It is served in the precision that its thresholds were calibrated for, which the manifest's config names.

        Raises:
            ArtifactError: another role, an unreadable graph, an unknown precision, or fewer slots than the manifest has
                labels.
        """
        if manifest.role != "router":
            raise ArtifactError(f"version {manifest.version} was made for role {manifest.role}, wanted router")
        self._labels = manifest.labels
        self._floor = float(manifest.config.get("category_floor", DEFAULT_CATEGORY_FLOOR))
        self._session = EncoderSession(
            folder,
            threads=threads,
            max_tokens=int(manifest.config.get("max_tokens", DEFAULT_MAX_TOKENS)),
            precision=precision_of(manifest.config),
        )
        self.resident_bytes = self._session.resident_bytes
        slots = self._session.run([_PROBE]).outputs["category_probability"].shape[1]
        if len(self._labels) > slots:
            raise ArtifactError(f"version {manifest.version} has {len(self._labels)} labels for {slots} slots")
        self.route([_PROBE])

    def route(self, queries: Sequence[str]) -> list[RouteResult]:
        """Judge each query.

        Raises:
            InvalidInputError: no query, or one without any text.
            ArtifactError: the graph gave a value that is no number.
        """
        if any(not query.strip() for query in queries):
            raise InvalidInputError("a query is empty; it needs at least one character that is no space")
        encoded = self._session.run(queries)
        local = encoded.outputs["local_probability"]
        if not np.isfinite(local).all():
            raise ArtifactError("the router's graph gave a local probability that is no number")
        results = []
        for row, truncated in enumerate(encoded.truncated):
            category, probability = self._pick(
                encoded.outputs["category_probability"][row], encoded.outputs["nearness"][row]
            )
            embedding = encoded.outputs["embedding"][row].astype(np.float32)
            results.append(
                RouteResult(float(local[row]) if self._labels else 0.0, category, probability, truncated, embedding)
            )
        return results

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors `[n, d]` of the base encoder; `[0, 0]` for no text."""
        return self._session.embed(texts)

    def close(self) -> None:
        """Let the graph go; later calls fail."""
        self._session.close()

    def _pick(self, probabilities: npt.NDArray[np.generic], nearness: npt.NDArray[np.generic]) -> tuple[str, float]:
        if not self._labels:
            return "", 0.0
        best = int(np.argmax(probabilities[: len(self._labels)]))
        probability = float(probabilities[best])
        if probability < self._floor or float(nearness[best]) < 0.0:
            return "", probability
        return self._labels[best], probability
