"""What the nearest train examples say of a response: the index file of a validator version, and its features.

The trainer writes the index, trainer and validator read it by the same code, so a head is fitted on what it will be
served. It knows embeddings, categories and hashes; no texts of examples are kept, no network and no threshold.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shammah_chassis.encoder import EMBEDDER_NAME, EncoderSession, Precision
from shammah_chassis.errors import ArtifactError
from shammah_chassis.text import collapse_whitespace, split_tokens

INDEX_NAME = "neighbours.npz"
NEAREST = 8
"""Train examples of the same category that are asked for each response."""
NEIGHBOUR_FEATURES = (
    *("known", "nearest_cosine", "agreeing_share", "agreeing_weight"),
    *("likeness", "best_likeness", "margin", "seen"),
)
"""Columns of `NeighbourIndex.measure`, in their fixed order. Only ever append."""
LONGEST_QUERY = 1024
"""Characters of a query that are embedded: bounds the time of a long one (about 256 tokens)."""
INDEX_PRECISION: Precision = "int8"
"""How queries are embedded for the index, when it is built and when it is asked: 2.4 times faster than fp32."""
_QUERY_TOKENS = 256
_WORD_BITS = 256
# A neighbour 0.1 of cosine further away counts e times less.
_SHARPNESS = 10.0
_CHUNK = 512
_ARRAYS = ("examples", "embeddings", "scales", "responses", "words", "categories", "starts")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourIndex:
    """The train examples of a version: row by row, those of one category together.

    `examples` uint64 `[n]`: hash of the example id. `embeddings` int8 `[n, d]` times `scales` float32 `[n]`: unit
    vectors of the queries. `responses` uint64 `[n]`: hash of the response. `words` uint8 `[n, 32]`: 256 bits, one
    set for each word of the response. Rows `starts[i]` to `starts[i + 1]` are of `categories[i]`.
    """

    examples: npt.NDArray[np.uint64]
    embeddings: npt.NDArray[np.int8]
    scales: Floats
    responses: npt.NDArray[np.uint64]
    words: npt.NDArray[np.uint8]
    categories: tuple[str, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays in memory."""
        arrays = (self.examples, self.embeddings, self.scales, self.responses, self.words)
        return sum(array.nbytes for array in arrays)

    def holds(self, example_id: str) -> bool:
        """Tell whether an example is in the index (what a request to forget it asks)."""
        return bool((self.examples == hash_text(example_id)).any())

    def measure(self, queries: Floats, categories: Sequence[str], responses: Sequence[str]) -> Floats:
        """Return `NEIGHBOUR_FEATURES` `[n, 8]` of responses to queries with unit vectors `[n, d]`.

        Only examples of the same category are asked; a category that the index doesn't hold gives zeros.
        """
        features = np.zeros((len(categories), len(NEIGHBOUR_FEATURES)), dtype=np.float32)
        for number, name in enumerate(self.categories):
            own = [row for row, category in enumerate(categories) if category == name]
            rows = slice(self.starts[number], self.starts[number + 1])
            if not own or rows.start == rows.stop:
                continue
            vectors = self.embeddings[rows].astype(np.float32)
            for start in range(0, len(own), _CHUNK):
                chunk = own[start : start + _CHUNK]
                cosines = (queries[chunk] @ vectors.T) * self.scales[rows]
                for row, cosine in zip(chunk, cosines, strict=True):
                    features[row] = self._compare(cosine, rows, responses[row])
        return features

    def _compare(self, cosine: Floats, rows: slice, response: str) -> list[float]:
        count = len(cosine)
        nearest = np.argpartition(-cosine, NEAREST)[:NEAREST] if count > NEAREST else np.arange(count)
        equal = self.responses[rows] == hash_response(response)
        near_equal, near_cosine = equal[nearest].astype(np.float32), cosine[nearest]
        best = float(near_cosine.max())
        weight = np.exp(_SHARPNESS * (near_cosine - best))
        weight /= weight.sum()
        like = np.maximum(near_equal, _dice(self.words[rows][nearest], set_words(response)))
        agreeing = float(cosine[equal].max()) if equal.any() else 0.0
        other = float(cosine[~equal].max()) if not equal.all() else 0.0
        seen = float(np.log1p(equal.sum()) / np.log1p(count))
        return [
            *(1.0, best, float(near_equal.mean()), float(weight @ near_equal)),
            *(float(weight @ like), float(like.max()), agreeing - other, seen),
        ]


class QueryEmbedder:
    """Embeds queries for the index, by the embedder of a validator version. Safe to use from several threads."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Load the embedder.

        Raises:
            ArtifactError: the version has no readable embedder.
        """
        self._session = EncoderSession(
            folder, threads=threads, max_tokens=_QUERY_TOKENS, graph=EMBEDDER_NAME, precision=INDEX_PRECISION
        )

    def embed(self, queries: Sequence[str]) -> Floats:
        """Return unit vectors `[n, d]`; `[0, 0]` for no query."""
        return self._session.embed([query[:LONGEST_QUERY] for query in queries])

    def close(self) -> None:
        """Let the graph go."""
        self._session.close()


class NeighbourFinder:
    """The index of a version with its embedder: from queries and responses to features."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Load both; a version without an index answers zeros and loads no embedder.

        Raises:
            ArtifactError: the index or the embedder can't be read.
        """
        self.index = load_index(folder)
        self._embedder = QueryEmbedder(folder, threads=threads) if self.index else None

    @property
    def rows(self) -> int:
        """Train examples in the index."""
        return len(self.index) if self.index else 0

    @property
    def resident_bytes(self) -> int:
        """Bytes of the index in memory; the embedder's weights are those of the version."""
        return self.index.resident_bytes if self.index else 0

    def measure(self, queries: Sequence[str], categories: Sequence[str], responses: Sequence[str]) -> Floats:
        """Return `NEIGHBOUR_FEATURES` `[n, 8]`; what the index holds nothing of is zero and costs no embedding."""
        features = np.zeros((len(queries), len(NEIGHBOUR_FEATURES)), dtype=np.float32)
        if self.index is None or self._embedder is None:
            return features
        known = [row for row, name in enumerate(categories) if name in self.index.categories]
        if known:
            vectors = self._embedder.embed([queries[row] for row in known])
            own = [categories[row] for row in known]
            features[known] = self.index.measure(vectors, own, [responses[row] for row in known])
        return features

    def close(self) -> None:
        """Let the embedder go."""
        if self._embedder is not None:
            self._embedder.close()


def hash_text(text: str) -> np.uint64:
    """Return 64 bits of BLAKE2b of a text, the same on every machine."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def hash_response(response: str) -> np.uint64:
    """Return the hash of a response; case and runs of whitespace don't count."""
    return hash_text(collapse_whitespace(response))


def set_words(response: str) -> npt.NDArray[np.uint8]:
    """Return uint8 `[32]`: 256 bits, one set for each word (two words may share one)."""
    bits = np.zeros(_WORD_BITS, dtype=np.uint8)
    bits[[zlib.crc32(token.encode()) % _WORD_BITS for token in split_tokens(response)]] = 1
    return np.packbits(bits)


def quantise_rows(vectors: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Return unit vectors `[n, d]` as int8 with one scale a row; a cosine is off by less than 0.01."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scales = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def save_index(index: NeighbourIndex, folder: Path) -> None:
    """Write the index into a version folder; equal indexes make equal bytes."""
    arrays: Mapping[str, npt.NDArray[np.generic]] = {
        "examples": index.examples,
        "embeddings": index.embeddings,
        "scales": index.scales,
        "responses": index.responses,
        "words": index.words,
        "categories": np.array(index.categories, dtype=np.str_),
        "starts": np.array(index.starts, dtype=np.int64),
    }
    with (folder / INDEX_NAME).open("wb") as target:
        np.savez(target, **arrays)  # type: ignore[arg-type]


def load_index(folder: Path) -> NeighbourIndex | None:
    """Read the index of a version folder, or None where it has none.

    Raises:
        ArtifactError: the file is not an index.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} can't be read as an index of train examples: {error!r}") from error
    starts = tuple(int(start) for start in arrays["starts"])
    rows = {len(arrays[name]) for name in ("examples", "embeddings", "scales", "responses", "words")}
    if rows != {starts[-1] if starts else 0} or len(starts) != len(arrays["categories"]) + 1:
        raise ArtifactError(f"{path}: its arrays don't fit together")
    categories = tuple(str(name) for name in arrays["categories"])
    rest = {name: arrays[name] for name in ("examples", "embeddings", "scales", "responses", "words")}
    return NeighbourIndex(**rest, categories=categories, starts=starts)


def _dice(rows: npt.NDArray[np.uint8], word_bits: npt.NDArray[np.uint8]) -> Floats:
    """Return 2 |A and B| / (|A| + |B|) of bit sets; 0 where both are empty."""
    shared = np.bitwise_count(rows & word_bits).sum(axis=1)
    total = np.bitwise_count(rows).sum(axis=1) + np.bitwise_count(word_bits).sum()
    likeness: Floats = (2.0 * shared / np.maximum(total, 1)).astype(np.float32)
    return likeness
