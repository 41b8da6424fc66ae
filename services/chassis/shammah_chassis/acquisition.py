"""Which queries of one category to have answered by the teacher next: the choice within a pool.

While few rows are known the densest query of each cluster (a typical query teaches most at first; Hacohen et al. 2022,
"Active learning on a budget"), later the one most uncertain query of each cluster, and always a random part, so that
the pool is never seen through the student's eyes only. Taught queries hold clusters of their own, as there: what is
chosen lies beyond them. How many a category gets is `shammah_chassis.learning_curve`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
FEW_ROWS = 64
"""Taught rows of a category below which density decides."""
RANDOM_SHARE = 0.2
_NEIGHBOURS = 20
_MOST_CLUSTERED = 4000
_MOST_KNOWN = 2000
_PASSES = 10


def choose_queries(
    pool: Floats,
    count: int,
    *,
    taught: int,
    uncertainty: Floats | None = None,
    seed: int = 0,
    random_share: float = RANDOM_SHARE,
    known: Floats | None = None,
) -> npt.NDArray[np.int64]:
    """Return the numbers of `count` different rows of `pool` (all, where it has no more).

    Args:
        pool: unit vectors `[n, d]` of the queries that may be taught.
        count: how many to choose.
        taught: rows of the category that were taught before.
        uncertainty: `[n]`, larger is less sure; None: density decides however many were taught.
        seed: for the random part and the clusters; the same arguments give the same rows.
        random_share: the part that is drawn at random, 0 to 1.
        known: unit vectors `[m, d]` of queries that were taught before; None: nobody has them.
    """
    rng = np.random.default_rng(seed)
    size = len(pool)
    if count >= size:
        return np.arange(size, dtype=np.int64)
    drawn = rng.permutation(size)[: round(random_share * count)]
    rest = np.setdiff1d(np.arange(size), drawn)
    if len(rest) > _MOST_CLUSTERED:
        rest = rng.choice(rest, max(_MOST_CLUSTERED, 2 * count), replace=False) if 2 * count < len(rest) else rest
    wanted = count - len(drawn)
    worth = uncertainty[rest] if uncertainty is not None and taught >= FEW_ROWS else measure_density(pool[rest])
    covered = np.concatenate([pool[drawn], pool[:0] if known is None else rng.permutation(known)[:_MOST_KNOWN]])
    best = _best_of_clusters(pool[rest], worth, wanted, covered=covered, seed=seed)
    return np.concatenate([drawn, rest[best]]).astype(np.int64)


def measure_density(vectors: Floats, *, neighbours: int = _NEIGHBOURS) -> Floats:
    """Return the mean cosine `[n]` of each unit vector `[n, d]` to its nearest others."""
    near = min(neighbours, len(vectors) - 1)
    if near < 1:
        return np.zeros(len(vectors), dtype=np.float32)
    density = np.empty(len(vectors), dtype=np.float32)
    for begin in range(0, len(vectors), 1024):
        cosine = vectors[begin : begin + 1024] @ vectors.T
        # The largest one is the row itself.
        density[begin : begin + 1024] = np.sort(cosine, axis=1)[:, -near - 1 : -1].mean(axis=1)
    return density


def _best_of_clusters(
    vectors: Floats, worth: Floats, count: int, *, covered: Floats, seed: int
) -> npt.NDArray[np.int64]:
    """Return the row of highest worth of each of `count` clusters beyond `covered` ones.

    Empty clusters give their place to the next best, of the rows that no covered one is nearest to while there are any.
    """
    if count < 1:
        return np.empty(0, dtype=np.int64)
    cluster = _cluster(vectors, count, covered=covered, seed=seed)
    order = np.argsort(-worth, kind="stable")
    order = np.concatenate([order[cluster[order] < count], order[cluster[order] >= count]])
    numbers, first = np.unique(cluster[order], return_index=True)
    best = order[first[numbers < count]]
    missing = count - len(best)
    if missing > 0:
        others = order[~np.isin(order, best)]
        best = np.concatenate([best, others[:missing]])
    return best.astype(np.int64)


def _cluster(vectors: Floats, count: int, *, covered: Floats, seed: int) -> npt.NDArray[np.int64]:
    """Return the cluster `[n]` of each unit vector: spherical k-means from far-apart rows (k-means++).

    The first `count` clusters move; those behind them are the `covered` vectors `[m, d]`, which stay where they are.
    """
    rng = np.random.default_rng(seed)
    centres = vectors[_spread_out(vectors, count, rng, covered=covered)]
    nearest = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(_PASSES):
        nearest = np.asarray(np.argmax(vectors @ np.concatenate([centres, covered]).T, axis=1), dtype=np.int64)
        sums = np.zeros((len(centres) + len(covered), vectors.shape[1]), dtype=vectors.dtype)
        np.add.at(sums, nearest, vectors)
        length = np.linalg.norm(sums, axis=1, keepdims=True)[: len(centres)]
        # An empty cluster keeps its centre.
        centres = np.where(length > 0, sums[: len(centres)] / np.maximum(length, 1e-9), centres)
    return nearest


def _spread_out(vectors: Floats, count: int, rng: np.random.Generator, *, covered: Floats) -> list[int]:
    """Return `count` rows, each drawn by its squared distance to those before it and to `covered` ones.

    k-means++ (Arthur and Vassilvitskii 2007).
    """
    distance = np.full(len(vectors), np.inf)
    if len(covered):
        distance = np.maximum(0.0, 2.0 - 2.0 * (vectors @ covered.T).max(axis=1))
    drawn: list[int] = [] if len(covered) else [int(rng.integers(len(vectors)))]
    while len(drawn) < count:
        if drawn:
            distance = np.minimum(distance, np.maximum(0.0, 2.0 - 2.0 * (vectors @ vectors[drawn[-1]])))
            distance[drawn] = 0.0
        total = float(distance.sum())
        if total <= 0.0:  # the rest are copies of what was drawn
            rest = rng.choice(np.setdiff1d(np.arange(len(vectors)), drawn), count - len(drawn))
            return [*drawn, *map(int, rest)]
        drawn.append(int(rng.choice(len(vectors), p=distance / total)))
    return drawn
