"""Unit vectors of queries by the unchanged base encoder, each computed once in a round.

Router, index of nearest examples and the scores of both ask for the same vectors: the body of either role is the base
encoder's, in every version. It knows folders and texts, no categories and no heads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from shammah_chassis.encoder import WEIGHTS_NAME, precision_of
from shammah_chassis.manifest import Manifest
from shammah_chassis.neighbours import INDEX_PRECISION, LONGEST_QUERY, Floats, QueryEmbedder

_BODY = "body."
_TOKENS = 256
"""Tokens of a query for the index; a router with another limit would cut others."""


class QueryVectors:
    """Vectors as the embedder of a validator version gives them; opened at the first use, safe for several threads."""

    def __init__(self, router: tuple[Path, Manifest], validator: Path, *, threads: int) -> None:
        """Take the folders of the champion's judges; nothing is loaded yet."""
        self._router, self._validator, self._threads = router, validator, threads
        self._known: dict[str, Floats] = {}
        self._lock = threading.Lock()
        self._embedder: QueryEmbedder | None = None
        self._shared: bool | None = None

    def embed(self, queries: Sequence[str]) -> Floats:
        """Return unit vectors float32 `[n, d]`, as `QueryEmbedder.embed`; `[0, 0]` for no query.

        Raises:
            ArtifactError: the version has no readable embedder.
        """
        queries = [query[:LONGEST_QUERY] for query in queries]
        with self._lock:
            wanted = list(dict.fromkeys(query for query in queries if query not in self._known))
            if wanted:
                if self._embedder is None:
                    self._embedder = QueryEmbedder(self._validator, threads=self._threads)
                self._known |= zip(wanted, self._embedder.embed(wanted), strict=True)
            found = [self._known[query] for query in queries]
        return np.stack(found) if found else np.zeros((0, 0), dtype=np.float32)

    def serve_router(self, manifest: Manifest, queries: Sequence[str]) -> bool:
        """Tell whether these vectors are what this router's graph would compute for these queries."""
        same = int(manifest.config["max_tokens"]) == _TOKENS and precision_of(manifest.config) == INDEX_PRECISION
        if not same or any(len(query) > LONGEST_QUERY for query in queries):
            return False
        if self._shared is None:
            self._shared = same_body(self._router[0], self._validator)
        return self._shared

    def close(self) -> None:
        """Let the graph go; what is known stays."""
        with self._lock:
            if self._embedder is not None:
                self._embedder.close()
                self._embedder = None


def same_body(one: Path, other: Path) -> bool:
    """Tell whether two version folders hold the same encoder, weight for weight."""
    with safe_open(one / WEIGHTS_NAME, framework="pt") as first, safe_open(other / WEIGHTS_NAME, "pt") as second:
        names = {name for name in first.keys() if name.startswith(_BODY)}  # noqa: SIM118 - not a mapping
        if names != {name for name in second.keys() if name.startswith(_BODY)}:  # noqa: SIM118
            return False
        return all(torch.equal(first.get_tensor(name), second.get_tensor(name)) for name in sorted(names))
