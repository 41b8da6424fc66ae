"""Scores of a release's router and validator on queries and rollouts, read from the exported graphs that will serve.

The trainer may not import the serving packages, so the few lines between a graph's outputs and a category or a quality
are here again; a test holds both to the same values. Where a round has a GPU, `network_scores` computes what the
validator's graph does, and is believed only where they agree. It knows folders and manifests, no thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shammah_chassis.encoder import (
    TOKENIZER_NAME,
    Array,
    EncoderSession,
    Floats,
    TextTokenizer,
    precision_of,
)
from shammah_chassis.manifest import Manifest
from shammah_chassis.neighbours import NEIGHBOUR_FEATURES, NeighbourFinder, load_index

from shammah_trainer.encoders.query_vectors import QueryVectors
from shammah_trainer.network_scores import score_by_network
from shammah_trainer.router_heads import run_heads

Item = tuple[str, str, str, Sequence[float]]
"""Query, response, category and statistics of one response."""


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


def route_queries(
    folder: Path, manifest: Manifest, queries: Sequence[str], *, threads: int, vectors: QueryVectors | None = None
) -> list[Routed]:
    """Route queries as `shammah_router.engine` would with this version, in the precision that it will be served in.

    `vectors` saves the encoding, where they are this router's.
    """
    if not queries:
        return []
    limit = int(manifest.config["max_tokens"])
    if vectors is not None and vectors.serve_router(manifest, queries):
        outputs: dict[str, Array] = dict(run_heads(folder, vectors.embed(queries)))
        rows = TextTokenizer(folder / TOKENIZER_NAME, max_tokens=limit).encode(list(queries))
        return _read_routes(manifest, outputs, [row.truncated for row in rows])
    session = EncoderSession(folder, threads=threads, max_tokens=limit, precision=precision_of(manifest.config))
    try:
        encoded = session.run(list(queries))
    finally:
        session.close()
    return _read_routes(manifest, encoded.outputs, encoded.truncated)


def _read_routes(manifest: Manifest, outputs: Mapping[str, Array], cut: Sequence[bool]) -> list[Routed]:
    labels, floor = manifest.labels, float(manifest.config.get("category_floor", 0.5))
    routed = []
    for row, truncated in enumerate(cut):
        category = ""
        if labels:
            chances = outputs["category_probability"][row][: len(labels)]
            best = int(np.argmax(chances))
            if float(chances[best]) >= floor and float(outputs["nearness"][row][best]) >= 0.0:
                category = labels[best]
        local = float(outputs["local_probability"][row]) if labels else 0.0
        routed.append(Routed(local, category, truncated))
    return routed


def judge_responses(
    folder: Path,
    manifest: Manifest,
    items: Sequence[Item],
    *,
    threads: int,
    vectors: QueryVectors | None = None,
    device: str = "cpu",
) -> list[Judged]:
    """Judge (query, response, category, statistics) as `shammah_validator.engine` would with this version.

    `vectors` saves the encoding of the queries; on a `device` "cuda" the network computes for the graph.
    """
    if not items:
        return []
    capacity = int(manifest.config.get("capacity", 0))
    slots = {label: slot for slot, label in enumerate(manifest.labels)}
    category = np.zeros((len(items), capacity), dtype=np.float32)
    for row, item in enumerate(items):
        if item[2] in slots:
            category[row, slots[item[2]]] = 1.0
    extra: dict[str, Floats] = {
        "statistics": np.array([item[3] for item in items], dtype=np.float32),
        "has_statistics": np.ones(len(items), dtype=np.float32),
        "category": category,
        "neighbours": _ask_neighbours(folder, items, threads=threads, vectors=vectors),
    }
    pairs = [(item[0], item[1]) for item in items]
    session = EncoderSession(folder, threads=threads, max_tokens=int(manifest.config["max_tokens"]))
    try:
        quality = None if device == "cpu" else score_by_network(folder, session, pairs, extra, device=device)
        if quality is None:
            quality = session.run(pairs, extra).outputs["quality"].astype(np.float32)
    finally:
        session.close()
    return [
        # An empty response has no merit, whatever the graph says.
        Judged(float(quality[row]) if items[row][1].strip() else 0.0, truncated)
        for row, truncated in enumerate(are_truncated(folder, manifest, pairs))
    ]


def are_truncated(folder: Path, manifest: Manifest, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Tell of each (query, response) whether the validator would see only a part of it."""
    if not pairs:
        return []
    tokenizer = TextTokenizer(folder / TOKENIZER_NAME, max_tokens=int(manifest.config["max_tokens"]))
    return [row.truncated for row in tokenizer.encode(list(pairs))]


def _ask_neighbours(folder: Path, items: Sequence[Item], *, threads: int, vectors: QueryVectors | None) -> Floats:
    if vectors is not None:
        features = np.zeros((len(items), len(NEIGHBOUR_FEATURES)), dtype=np.float32)
        index = load_index(folder)
        known = [row for row, item in enumerate(items) if index is not None and item[2] in index.categories]
        if index is not None and known:
            own = [items[row] for row in known]
            queries = vectors.embed([item[0] for item in own])
            features[known] = index.measure(queries, [item[2] for item in own], [item[1] for item in own])
        return features
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
