"""Exact paired tests: levels, known values, multiple testing."""

from __future__ import annotations

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.paired import difference_interval, holm, rise_p_value, worse_p_value


@pytest.mark.parametrize(("n", "share_of_gains", "tolerance"), [(30, 0.02, 0.03), (200, 0.05, 0.03), (60, 0.1, 0.0)])
def test_the_test_of_worse_keeps_its_level_at_the_border(n: int, share_of_gains: float, tolerance: float) -> None:
    rng = np.random.default_rng(5)
    share_of_losses = share_of_gains + tolerance
    draws = rng.multinomial(n, [share_of_gains, share_of_losses, 1 - share_of_gains - share_of_losses], 1500)
    rejected = sum(worse_p_value(int(g), int(lost), n, tolerance=tolerance) <= 0.05 for g, lost, _ in draws)
    assert rejected / 1500 <= 0.05 + 2 * (0.05 * 0.95 / 1500) ** 0.5


def test_more_losses_give_a_smaller_p_value() -> None:
    values = [worse_p_value(5, losses, 200, tolerance=0.03) for losses in (6, 15, 25, 40)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.5
    assert values[-1] < 0.01


def test_a_larger_tolerance_gives_a_larger_p_value() -> None:
    values = [worse_p_value(2, 20, 200, tolerance=t) for t in (0.0, 0.03, 0.06, 0.2)]
    assert values == sorted(values)


def test_without_more_losses_than_gains_nothing_is_shown() -> None:
    assert worse_p_value(5, 5, 100, tolerance=0.0) == 1.0
    assert worse_p_value(0, 0, 0, tolerance=0.03) == 1.0
    assert worse_p_value(0, 10, 10, tolerance=0.03) < 0.01


def test_rise_is_the_exact_sign_test() -> None:
    assert rise_p_value(5, 0) == pytest.approx(1 / 32)
    assert rise_p_value(8, 2) == pytest.approx(56 / 1024)
    assert rise_p_value(0, 0) == 1.0


def test_the_interval_holds_the_difference_and_shrinks_with_rows() -> None:
    low, high = difference_interval(30, 10, 200)
    assert low < 0.1 < high
    wide = difference_interval(3, 1, 20)
    assert wide[1] - wide[0] > high - low
    assert difference_interval(0, 0, 0) == (-1.0, 1.0)


def test_holm_lowers_the_bar_step_by_step_and_stops_at_the_first_failure() -> None:
    assert holm([0.01, 0.04, 0.02], 0.05) == [True, True, True]
    assert holm([0.03, 0.04, 0.01], 0.05) == [False, False, True]
    assert holm([0.02, 0.001, 0.9], 0.05) == [True, True, False]
    assert holm([], 0.05) == []


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError):
        worse_p_value(*counts, tolerance=0.03)
    with pytest.raises(InvalidInputError):
        difference_interval(*counts)


@pytest.mark.parametrize("tolerance", [-0.01, 1.0, float("nan")])
def test_an_impossible_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(InvalidInputError):
        worse_p_value(1, 2, 10, tolerance=tolerance)
