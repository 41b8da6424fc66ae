"""Queries of one category as vectors of their words, so that a choice among many needs no model.

Words and pairs of neighbours, rarer ones weighing more (tf-idf), hashed into a fixed number of places (Weinberger et
al. 2009). Near vectors share words; what means the same in other words lies apart, which an encoder would see.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from shammah_chassis.text import split_tokens

PLACES = 256


def embed_words(queries: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return unit vectors `[n, PLACES]`; a query without words has a zero vector."""
    terms = [Counter(_list_terms(query)) for query in queries]
    seen = Counter(term for row in terms for term in row)
    vectors = np.zeros((len(queries), PLACES), dtype=np.float32)
    for vector, row in zip(vectors, terms, strict=True):
        for term, count in row.items():
            digest = zlib.crc32(term.encode())
            # The sign takes away what terms of one place have in common by chance.
            sign = 1.0 if digest & 1 else -1.0
            vector[(digest >> 1) % PLACES] += sign * (1.0 + math.log(count)) * math.log(1.0 + len(queries) / seen[term])
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(length, 1e-9)
    return vectors


def _list_terms(query: str) -> list[str]:
    words = split_tokens(query)
    return [*words, *(f"{one} {other}" for one, other in pairwise(words))]
