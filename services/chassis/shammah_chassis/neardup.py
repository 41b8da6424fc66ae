"""Clusters of near-duplicate queries, so that one cluster never lies in two parts.

It keeps nothing on disk: rebuild it by adding the texts in the same order. It does not know parts.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash, MinHashLSH

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.text import normalise_query

_PERMUTATIONS = 128
_SEED = 1
# The index looks a little below the threshold: MinHash estimates Jaccard with a standard deviation of about .03 here,
# and what it finds too much is thrown out by the exact check.
_MARGIN = 0.15
_ROOM = 1024
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Look:
    """What looking one text up found: its number of shingles, its sketch, and the cluster that it would join."""

    text: str
    size: int
    sketch: MinHash
    cluster: str | None


class NearDuplicates:
    """Joins queries whose word unigrams and bigrams have a Jaccard similarity of at least `threshold`.

    A text joins the cluster of its most similar member (the earliest of equals). Deterministic: the same texts in the
    same order give the same clusters. Not safe for use by several threads at once.
    """

    def __init__(self, threshold: float = 0.9) -> None:
        """Start empty; `threshold` in [0.5, 1], else InvalidInputError."""
        if not 0.5 <= threshold <= 1.0:
            raise InvalidInputError(f"threshold is {threshold}; allowed: 0.5 to 1")
        self._threshold = threshold
        bands, rows = _choose_bands(threshold - _MARGIN)
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=(bands, rows))
        self._texts: list[str] = []
        self._clusters: dict[str, str] = {}
        # By number of the text: its MinHash values, and how many shingles it has.
        self._signatures = np.empty((_ROOM, _PERMUTATIONS), np.uint32)
        self._sizes = np.empty(_ROOM, np.int32)
        self._looked: _Look | None = None
        # The random permutations are made once: making them is most of the cost of a MinHash.
        self._empty = MinHash(num_perm=_PERMUTATIONS, seed=_SEED)

    def __len__(self) -> int:
        """Return how many different normalised texts are held."""
        return len(self._clusters)

    def add(self, text: str) -> str:
        """Add `text`; return its cluster: SHA-256 (hex) of the normalised text of the cluster's first member."""
        normalised = normalise_query(text)
        known = self._clusters.get(normalised)
        if known is not None:
            return known
        look = self._look(normalised)
        cluster = look.cluster
        if cluster is None:
            cluster = hashlib.sha256(normalised.encode()).hexdigest()
        number = len(self._texts)
        self._index.insert(number, look.sketch, check_duplication=False)
        if number == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
            self._sizes = np.concatenate([self._sizes, np.empty_like(self._sizes)])
        self._signatures[number] = look.sketch.hashvalues
        self._sizes[number] = look.size
        self._texts.append(normalised)
        self._clusters[normalised] = cluster
        self._looked = None
        return cluster

    def find(self, text: str) -> str | None:
        """Return the cluster that `text` would join, or None when nothing added is near it."""
        normalised = normalise_query(text)
        known = self._clusters.get(normalised)
        if known is not None:
            return known
        return self._look(normalised).cluster

    def extend(self, texts: Iterable[str]) -> list[str]:
        """Add `texts` in order; return the cluster of each."""
        return [self.add(text) for text in texts]

    def _look(self, normalised: str) -> _Look:
        """Look a text up; who finds it missing adds it next, so the last look is kept."""
        if self._looked is None or self._looked.text != normalised:
            shingles = _shingle(normalised)
            sketch = self._sketch(shingles)
            self._looked = _Look(normalised, len(shingles), sketch, self._match(shingles, sketch))
        return self._looked

    def _sketch(self, shingles: frozenset[str]) -> MinHash:
        sketch = self._empty.copy()
        if shingles:
            sketch.update_batch([shingle.encode() for shingle in sorted(shingles)])
        return sketch

    def _match(self, shingles: frozenset[str], sketch: MinHash) -> str | None:
        best, found = self._threshold, None
        # From the last to the first: of equals the earliest stays.
        for number in reversed(self._sift(len(shingles), sketch)):
            similarity = measure_jaccard(shingles, _shingle(self._texts[number]))
            if similarity >= best:
                best, found = similarity, self._texts[number]
        return None if found is None else self._clusters[found]

    def _sift(self, size: int, sketch: MinHash) -> list[int]:
        """Return the numbers of the texts that may be near enough, in order, without looking at their words.

        Queries of one template share most of their words: the index finds hundreds of them. Of sets whose sizes differ
        too much, and of sketches that agree too little, none is near; the latter loses a pair at the threshold with a
        chance of about 1e-8.
        """
        numbers = np.sort(np.fromiter(self._index.query(sketch), np.int64))
        if not len(numbers):
            return []
        sizes = self._sizes[numbers]
        close = np.minimum(sizes, size) >= self._threshold * np.maximum(sizes, size) - _ROUNDING
        numbers = numbers[close]
        agreement = (self._signatures[numbers] == sketch.hashvalues).mean(axis=1)
        found: list[int] = numbers[agreement >= self._threshold - _MARGIN].tolist()
        return found


def measure_jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return |left and right| / |left or right|, in [0, 1]; 1 for two empty sets."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def _shingle(normalised: str) -> frozenset[str]:
    words = normalised.split()
    return frozenset(words) | {f"{a} {b}" for a, b in itertools.pairwise(words)}


def _choose_bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows) whose S-curve (1/bands)^(1/rows) lies nearest to `threshold` (Leskovec et al., ch. 3.4)."""
    rows = np.arange(1, _PERMUTATIONS + 1)
    bands = _PERMUTATIONS // rows
    best = int(np.argmin(np.abs((1.0 / bands) ** (1.0 / rows) - threshold)))
    return int(bands[best]), int(rows[best])
