"""What the relevance study takes from the workload's train files: more pairs, and the index of neighbours."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
from judges_data import Row, Site, group_of
from judges_tune import Base
from shammah_chassis.neighbours import NeighbourIndex, hash_response, hash_text, quantise_rows, set_words

_ADDED = 80  # queries of each family that give two more pairs
_NEIGHBOURS = 1500  # rows of each family in the index


def add_workload(site: Site, *, without: Set[str]) -> list[Row]:
    """Return for some queries of each family its own answer and another answer of the family."""
    added: list[Row] = []
    generator = np.random.default_rng(0)
    for family, rows in _read_families(site, without=without).items():
        answers = sorted({str(row["reference"]) for row in rows})
        if len(answers) < 2:
            continue
        for row in rows[: _ADDED if not site.rows else site.rows // 20]:
            others = [answer for answer in answers if answer != row["reference"]]
            other = others[int(generator.integers(len(others)))]
            for response, relevant in ((str(row["reference"]), True), (other, False)):
                added.append(_make_row(row["query"], response, relevant=relevant, family=family))
    return added


def index_workload(site: Site, base: Base, *, without: Set[str]) -> NeighbourIndex:
    """Return an index of one category over all families: which family a query is of, its neighbours say."""
    most = site.rows // 10 if site.rows else _NEIGHBOURS
    rows = [row for found in _read_families(site, without=without).values() for row in found[:most]]
    embeddings, scales = quantise_rows(base.embed([row["query"] for row in rows]).astype(np.float32))
    answers = [str(row["reference"]) for row in rows]
    return NeighbourIndex(
        examples=np.array([hash_text(row["id"]) for row in rows], dtype=np.uint64),
        embeddings=embeddings,
        scales=scales,
        responses=np.array([hash_response(answer) for answer in answers], dtype=np.uint64),
        words=np.stack([set_words(answer) for answer in answers]),
        categories=("all",),
        starts=(0, len(rows)),
    )


def _read_families(site: Site, *, without: Set[str]) -> dict[str, list[Row]]:
    """Return the train rows of each family in the order of their ids' hashes, but those whose query is known."""
    found = {}
    for path in sorted((site.data / "workload").glob("*.train.jsonl.gz")):
        rows = Site(site.data, site.encoder).read(f"workload/{path.name.removesuffix('.jsonl.gz')}")
        kept = [row for row in rows if row["reference"] and not _groups_of(row) & without]
        found[path.name.split(".")[0]] = sorted(kept, key=lambda row: int(hash_text(row["id"])))
    return found


def _groups_of(row: Row) -> set[str]:
    """A relevance row may ask with or without the instruction of its family."""
    texts = (row["query"], str(row["metadata"].get("text") or row["query"]))
    return {group_of({"query": text}) for text in texts}


def _make_row(query: str, response: str, *, relevant: bool, family: str) -> dict[str, Any]:
    return {
        "query": query,
        "response": response,
        "context": None,
        "label_relevant": relevant,
        "metadata": {"family": f"workload_{family}", "kind": "added"},
    }
