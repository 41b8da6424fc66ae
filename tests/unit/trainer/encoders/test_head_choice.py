from __future__ import annotations

import numpy as np
import pytest
from shammah_trainer.encoders.head_choice import HeadReport, measure_accepted, measure_auroc, measure_calibration

GOOD = np.array([True, True, True, False, True, False])


def test_the_accepted_share_is_the_longest_prefix_at_the_precision() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert measure_accepted(scores, GOOD, precision=0.95) == 0.5
    assert measure_accepted(scores, GOOD, precision=0.8) == pytest.approx(5 / 6)
    assert measure_accepted(scores, ~GOOD, precision=0.95) == 0.0
    assert measure_accepted(np.array([]), np.array([], dtype=bool), precision=0.95) == 0.0


def test_rows_of_one_score_are_accepted_together_or_not_at_all() -> None:
    assert measure_accepted(np.full(6, 0.5), GOOD, precision=0.6) == 1.0
    assert measure_accepted(np.full(6, 0.5), GOOD, precision=0.7) == 0.0


def test_auroc_counts_ties_half_and_is_one_half_without_a_class() -> None:
    assert measure_auroc(np.array([0.9, 0.1]), np.array([True, False])) == 1.0
    assert measure_auroc(np.array([0.5, 0.5, 0.2]), np.array([True, False, False])) == 0.75
    assert measure_auroc(np.array([0.5, 0.4]), np.array([True, True])) == 0.5


def test_calibration_is_the_distance_of_said_and_found_shares() -> None:
    good = np.arange(1000) % 4 == 0
    assert measure_calibration(np.full(1000, 0.25), good) < 0.05
    assert measure_calibration(np.full(1000, 0.75), good) == pytest.approx(0.5, abs=0.01)


def test_a_head_must_win_on_loss_and_lose_nothing_on_the_accepted_share() -> None:
    base = HeadReport(0.4, 0.9, 0.5, 0.0)
    assert HeadReport(0.3, 0.9, 0.5, 0.0).beats(base)
    assert not HeadReport(0.3, 0.9, 0.4, 0.0).beats(base)
    assert not HeadReport(0.5, 0.9, 0.6, 0.0).beats(base)
