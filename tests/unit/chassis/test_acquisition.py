"""The choice of queries within a category: typical ones first, then uncertain ones, spread over clusters."""

from __future__ import annotations

import numpy as np
import pytest
from shammah_chassis.acquisition import FEW_ROWS, choose_queries, measure_density


def make_pool(*sizes: int, seed: int = 0, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors in clusters of the given sizes, and the cluster of each."""
    rng = np.random.default_rng(seed)
    centres = np.eye(16)[: len(sizes)]
    vectors = np.concatenate([c + noise * rng.normal(size=(n, 16)) for c, n in zip(centres, sizes, strict=True)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(len(sizes)), sizes)


def test_each_cluster_gives_a_typical_row_first() -> None:
    pool, cluster = make_pool(200, 40, 20, 10)
    density = measure_density(pool)
    chosen = choose_queries(pool, 4, taught=0, random_share=0.0)
    assert len(set(chosen)) == 4
    assert len(set(cluster[chosen])) >= 3
    for row in chosen:
        assert density[row] > np.median(density[cluster == cluster[row]])


def test_later_the_uncertain_row_of_each_cluster_is_chosen() -> None:
    pool, _ = make_pool(60, 60, 60, 60)
    uncertainty = np.random.default_rng(1).random(len(pool)).astype(np.float32)
    chosen = choose_queries(pool, 12, taught=FEW_ROWS, uncertainty=uncertainty, random_share=0.0)
    assert uncertainty[chosen].mean() > 0.8
    early = choose_queries(pool, 12, taught=FEW_ROWS - 1, uncertainty=uncertainty, random_share=0.0)
    assert uncertainty[early].mean() < 0.8


def test_a_part_is_random_and_no_row_comes_twice() -> None:
    pool, _ = make_pool(150, 150)
    chosen = choose_queries(pool, 100, taught=0, seed=3)
    assert len(set(chosen.tolist())) == 100
    again = choose_queries(pool, 100, taught=0, seed=4)
    assert len(set(chosen.tolist()) & set(again.tolist())) < 95
    assert choose_queries(pool, 100, taught=0, seed=3).tolist() == chosen.tolist()


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_small_pool_is_given_whole(size: int) -> None:
    pool, _ = make_pool(size)
    assert sorted(choose_queries(pool, 10, taught=0)) == list(range(size))


def test_equal_rows_and_a_large_pool_are_no_problem() -> None:
    same = np.tile(np.eye(16, dtype=np.float32)[:1], (50, 1))
    assert len(set(choose_queries(same, 20, taught=0).tolist())) == 20
    pool, _ = make_pool(3000, 3000)
    assert len(set(choose_queries(pool, 50, taught=0).tolist())) == 50


def test_what_is_chosen_lies_beyond_what_was_taught() -> None:
    pool, cluster = make_pool(60, 60, 60, 60, noise=0.04)
    known = pool[np.flatnonzero(cluster < 2)[::4]]
    chosen = choose_queries(pool, 2, taught=len(known), random_share=0.0, known=known)
    assert set(cluster[chosen]) == {2, 3}
    # Where the taught ones lie everywhere, there are still enough.
    assert len(set(choose_queries(pool, 30, taught=99, random_share=0.0, known=pool).tolist())) == 30
