"""Exact binomial arithmetic against rational numbers and published values."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.intervals import (
    beta_binomial_cdf,
    binomial_cdf,
    interval,
    lower_bound,
    rows_needed,
    upper_bound,
)


def exact_cdf(k: int, n: int, p: Fraction) -> float:
    return float(sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)))


@pytest.mark.parametrize(("n", "p"), [(1, "1/2"), (7, "1/20"), (59, "1/20"), (120, "7/10")])
def test_the_tail_equals_the_sum_in_rational_arithmetic(n: int, p: str) -> None:
    for k in range(n + 1):
        expected = exact_cdf(k, n, Fraction(p))
        assert binomial_cdf(k, n, float(Fraction(p))) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("k", [300, 400, 450, 500, 501, 560, 700])
def test_the_tail_is_exact_for_ten_thousand_rows(k: int) -> None:
    # Integers instead of rationals: p = 1/20, so every term is comb * 19^(n-i) over 20^n.
    n = 10_000
    total, term = 0, 1
    for i in range(k + 1):
        total += term * 19 ** (n - i)
        term = term * (n - i) // (i + 1)
    expected = float(Fraction(total, 20**n))
    assert binomial_cdf(k, n, 0.05) == pytest.approx(expected, rel=1e-9)


def test_the_tail_is_right_at_its_edges() -> None:
    assert binomial_cdf(-1, 10, 0.3) == 0.0
    assert binomial_cdf(10, 10, 0.3) == 1.0
    assert binomial_cdf(0, 0, 0.3) == 1.0
    assert binomial_cdf(0, 10, 0.0) == 1.0
    assert binomial_cdf(9, 10, 1.0) == 0.0
    assert 0.0 <= binomial_cdf(0, 10_000, 0.99) < 1e-300


def test_clopper_pearson_gives_the_published_values() -> None:
    # Rule of three and the textbook case 8 of 10.
    assert interval(0, 10) == pytest.approx((0.0, 0.30850), abs=1e-5)
    assert interval(8, 10) == pytest.approx((0.44390, 0.97479), abs=1e-5)
    assert interval(10, 10) == pytest.approx((0.69150, 1.0), abs=1e-5)
    assert interval(0, 0) == (0.0, 1.0)


def test_an_interval_covers_at_least_its_level() -> None:
    for p in (0.02, 0.3, 0.77):
        covered = 0.0
        for k in range(41):
            low, high = interval(k, 40, 0.9)
            mass = binomial_cdf(k, 40, p) - binomial_cdf(k - 1, 40, p)
            covered += mass if low <= p <= high else 0.0
        assert covered >= 0.9


def test_one_sided_bounds_mirror_each_other() -> None:
    assert lower_bound(3, 50, 0.05) == pytest.approx(1.0 - upper_bound(47, 50, 0.05))
    assert upper_bound(0, 59, 0.05) == pytest.approx(1.0 - 0.05 ** (1 / 59))


def test_rows_needed_gives_the_numbers_of_the_design() -> None:
    assert rows_needed(0.05, 0.05) == 59
    assert rows_needed(0.05, 0.05 / 18) == 115
    n = rows_needed(0.05, 0.05, 3)
    assert binomial_cdf(3, n, 0.05) <= 0.05 < binomial_cdf(3, n - 1, 0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: binomial_cdf(1, -1, 0.5),
        lambda: binomial_cdf(1, 5, 1.5),
        lambda: binomial_cdf(1, 5, float("nan")),
        lambda: interval(6, 5),
        lambda: interval(1, 5, 1.0),
        lambda: rows_needed(0.0, 0.05),
        lambda: rows_needed(0.05, 0.05, -1),
        lambda: rows_needed(1e-9, 0.05),
    ],
)
def test_impossible_numbers_are_refused(call) -> None:
    with pytest.raises(InvalidInputError):
        call()


def test_the_beta_binomial_is_the_mean_of_binomials_and_counts_all() -> None:
    # By the midpoint rule over the density of Beta(1.5, 20.5), which is finite everywhere.
    a, b, n, steps = 1.5, 20.5, 40, 8000
    points = [(i + 0.5) / steps for i in range(steps)]
    density = [p ** (a - 1) * (1 - p) ** (b - 1) for p in points]
    for k in (0, 2, 7):
        tails = [binomial_cdf(k, n, p) for p in points]
        expected = sum(d * t for d, t in zip(density, tails, strict=True)) / sum(density)
        assert beta_binomial_cdf(k, n, a, b) == pytest.approx(expected, rel=1e-3)
    assert beta_binomial_cdf(n, n, a, b) == 1.0
    assert beta_binomial_cdf(-1, n, a, b) == 0.0
    with pytest.raises(InvalidInputError, match="a, b > 0"):
        beta_binomial_cdf(1, 3, 0.0, 1.0)
