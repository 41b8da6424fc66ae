from __future__ import annotations

import pytest
from scipy.stats import binomtest
from shammah_gateway.intervals import binomial_cdf, clopper_pearson


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (1, 200), (95, 100), (100, 200)])
def test_the_interval_is_the_exact_one(successes: int, trials: int) -> None:
    exact = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_without_trials_nothing_is_known() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_the_ends_of_the_binomial() -> None:
    assert binomial_cdf(0, 5, 0.0) == 1.0
    assert binomial_cdf(4, 5, 1.0) == 0.0
    assert binomial_cdf(5, 5, 1.0) == 1.0
