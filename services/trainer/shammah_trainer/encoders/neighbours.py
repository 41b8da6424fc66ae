"""Builds the index of train examples that a validator version carries, from rows that still exist.

A row that was forgotten is not among them and so leaves the index with the next version. Embeddings that the parent's
index has are taken over: the base encoder never changes. It knows no ledger and no grades.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from shammah_chassis.neighbours import (
    NeighbourIndex,
    QueryEmbedder,
    hash_response,
    hash_text,
    quantise_rows,
    set_words,
)

from shammah_trainer.encoders.query_vectors import QueryVectors
from shammah_trainer.encoders.results import IndexRow


def choose_rows(rows: Sequence[IndexRow], *, most: int) -> dict[str, list[IndexRow]]:
    """Return at most `most` rows of each category, categories in order.

    The ones with the smallest hashes of their ids: a uniform sample that stays the same while rows are added, without
    any state (bottom-k sampling), so few embeddings change from version to version.
    """
    unique = {row.id: row for row in rows if row.category and row.query.strip() and row.response.strip()}
    chosen: dict[str, list[IndexRow]] = {}
    for row in sorted(unique.values(), key=lambda row: int(hash_text(row.id))):
        own = chosen.setdefault(row.category, [])
        if len(own) < most:
            own.append(row)
    return dict(sorted(chosen.items()))


def build_index(
    rows: Sequence[IndexRow], parent: NeighbourIndex | None, embedder: QueryEmbedder | QueryVectors, *, most: int
) -> NeighbourIndex | None:
    """Build the index of `rows`, at most `most` of each category; None for no rows."""
    chosen = choose_rows(rows, most=most)
    flat = [row for own in chosen.values() for row in own]
    if not flat:
        return None
    examples = np.array([hash_text(row.id) for row in flat], dtype=np.uint64)
    place = {} if parent is None else {int(name): row for row, name in enumerate(parent.examples)}
    new = [row for row, name in zip(flat, examples, strict=True) if int(name) not in place]
    made, made_scales = quantise_rows(embedder.embed([row.query for row in new]))
    if parent is not None and parent.embeddings.size:
        made = np.concatenate([parent.embeddings, made.reshape(-1, parent.embeddings.shape[1])])
        made_scales = np.concatenate([parent.scales, made_scales])
    place |= {int(hash_text(row.id)): number + len(place) for number, row in enumerate(new)}
    source = [place[int(name)] for name in examples]
    lengths = [len(own) for own in chosen.values()]
    return NeighbourIndex(
        examples=examples,
        embeddings=made[source],
        scales=made_scales[source],
        responses=np.array([hash_response(row.response) for row in flat], dtype=np.uint64),
        words=np.stack([set_words(row.response) for row in flat]),
        categories=tuple(chosen),
        starts=(0, *(int(end) for end in np.cumsum(lengths))),
    )
