"""Scores of a release's router and validator on queries and rollouts, read from the exported graphs that will serve.

The trainer may not import the serving packages, so the few lines between a graph's outputs and a category or a quality
are here again; a test holds both to the same values. It knows folders and manifests, no thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shammah_chassis.encoder import EncoderSession, precision_of
from shammah_chassis.manifest import Manifest
from shammah_chassis.neighbours import NeighbourFinder


@dataclass(frozen=True, slots=True)
class Routed:
    """What the router says of one query; `category` is "" when it takes it for none that it knows."""

    local_probability: float
    category: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """What the validator says of one response: quality 0 to 1."""

    quality: float
    truncated: bool


def route_queries(folder: Path, manifest: Manifest, queries: Sequence[str], *, threads: int) -> list[Routed]:
    """Route queries as `shammah_router.engine` would with this version, in the precision that it will be served in."""
    if not queries:
        return []
    session = EncoderSession(
        folder,
        threads=threads,
        max_tokens=int(manifest.config["max_tokens"]),
        precision=precision_of(manifest.config),
    )
    try:
        encoded = session.run(list(queries))
    finally:
        session.close()
    labels, floor = manifest.labels, float(manifest.config.get("category_floor", 0.5))
    routed = []
    for row, truncated in enumerate(encoded.truncated):
        category = ""
        if labels:
            chances = encoded.outputs["category_probability"][row][: len(labels)]
            best = int(np.argmax(chances))
            if float(chances[best]) >= floor and float(encoded.outputs["nearness"][row][best]) >= 0.0:
                category = labels[best]
        local = float(encoded.outputs["local_probability"][row]) if labels else 0.0
        routed.append(Routed(local, category, truncated))
    return routed


def judge_responses(
    folder: Path,
    manifest: Manifest,
    items: Sequence[tuple[str, str, str, Sequence[float]]],
    *,
    threads: int,
) -> list[Judged]:
    """Judge (query, response, category, statistics) as `shammah_validator.engine` would with this version."""
    if not items:
        return []
    capacity = int(manifest.config.get("capacity", 0))
    slots = {label: slot for slot, label in enumerate(manifest.labels)}
    category = np.zeros((len(items), capacity), dtype=np.float32)
    for row, item in enumerate(items):
        if item[2] in slots:
            category[row, slots[item[2]]] = 1.0
    extra: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {
        "statistics": np.array([item[3] for item in items], dtype=np.float32),
        "has_statistics": np.ones(len(items), dtype=np.float32),
        "category": category,
        "neighbours": _ask_neighbours(folder, items, threads=threads),
    }
    session = EncoderSession(folder, threads=threads, max_tokens=int(manifest.config["max_tokens"]))
    try:
        encoded = session.run([(item[0], item[1]) for item in items], extra)
    finally:
        session.close()
    quality = encoded.outputs["quality"]
    return [
        # An empty response has no merit, whatever the graph says.
        Judged(float(quality[row]) if items[row][1].strip() else 0.0, truncated)
        for row, truncated in enumerate(encoded.truncated)
    ]


def _ask_neighbours(
    folder: Path, items: Sequence[tuple[str, str, str, Sequence[float]]], *, threads: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    finder = NeighbourFinder(folder, threads=threads)
    try:
        return finder.measure([item[0] for item in items], [item[2] for item in items], [item[1] for item in items])
    finally:
        finder.close()


class SimilarityEncoder:
    """Embeddings of the unchanged base encoder, for the grader `similarity`; opened at the first use.

    Always in float32, as the validator's: a grade is evidence, not a shortcut.
    """

    def __init__(self, router_folder: Path, manifest: Manifest, *, threads: int) -> None:
        self._folder = router_folder
        self._max_tokens = int(manifest.config["max_tokens"])
        self._threads = threads
        self._session: EncoderSession | None = None

    def embed(self, texts: list[str], /) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Return unit vectors, float32 `[n, d]`."""
        if self._session is None:
            self._session = EncoderSession(self._folder, threads=self._threads, max_tokens=self._max_tokens)
        return self._session.embed(texts)

    def close(self) -> None:
        """Let the graph go."""
        if self._session is not None:
            self._session.close()
            self._session = None
