"""Drift: rarely seen where nothing changed, seen where it did, and over when it is over."""

from __future__ import annotations

import numpy as np
import pytest
from shammah_gateway.promise.drift import (
    MIX_WINDOW,
    SCORE_WINDOW,
    MixDrift,
    ScoreDrift,
    chi_square_quantile,
    stability_index,
)


def exam(rng: np.random.Generator, rows: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    scores = np.sort(rng.beta(5, 1, rows))
    edges = [float(scores[(tenth * rows) // 10]) for tenth in range(1, 10)]
    return tuple(edges), tuple(np.histogram(scores, [-np.inf, *edges, np.inf])[0].tolist())


def test_the_quantile_is_that_of_the_tables() -> None:
    assert chi_square_quantile(9) == pytest.approx(27.877, rel=0.01)
    assert chi_square_quantile(2) == pytest.approx(13.816, rel=0.03)


def test_the_index_is_zero_for_equal_shares_and_symmetric() -> None:
    assert stability_index([10, 20], [10.0, 20.0]) == pytest.approx(0.0)
    assert stability_index([10, 40], [40.0, 10.0]) == pytest.approx(stability_index([40, 10], [10.0, 40.0]))


@pytest.mark.parametrize("rows", [60, 200])
def test_scores_like_those_of_the_exam_are_rarely_called_drift(rows: int) -> None:
    rng = np.random.default_rng(3)
    drifted = 0
    for _ in range(300):
        drift = ScoreDrift(*exam(rng, rows))
        for score in rng.beta(5, 1, SCORE_WINDOW):
            drift.add(float(score))
        drifted += drift.drifted
    assert drifted <= 4  # 1 in 1,000 is the level; chi-square is an approximation


def test_lower_scores_are_drift_until_they_are_like_before() -> None:
    rng = np.random.default_rng(4)
    drift = ScoreDrift(*exam(rng, 300))
    for score in rng.beta(2, 2, SCORE_WINDOW):
        drift.add(float(score))
    assert drift.drifted
    assert drift.index > 0.2
    for score in rng.beta(5, 1, 3 * SCORE_WINDOW):
        drift.add(float(score))
    assert not drift.drifted


def test_without_deciles_nothing_is_said() -> None:
    drift = ScoreDrift((), ())
    for _ in range(2 * SCORE_WINDOW):
        drift.add(0.1)
    assert not drift.drifted


def test_a_new_kind_of_queries_is_drift_of_the_mix() -> None:
    rng = np.random.default_rng(5)
    mix = MixDrift()
    for name in rng.choice(["spam", "intent", ""], 3 * MIX_WINDOW, p=[0.5, 0.4, 0.1]):
        mix.add(str(name))
    assert not mix.drifted
    for name in rng.choice(["spam", "intent", ""], MIX_WINDOW, p=[0.1, 0.4, 0.5]):
        mix.add(str(name))
    assert mix.drifted
