from __future__ import annotations

import math

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_generator.sampling import Chooser, Sampling, score_token

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.1])
LOGITS = (np.log(PROBABILITIES) + 3.0).astype(np.float32)


def draw(count=4000, **settings):
    chooser = Chooser(Sampling(**{"temperature": 1.0, "seed": 1} | settings))
    return np.array([chooser.choose(LOGITS).token for _ in range(count)])


def test_greedy_takes_the_likeliest():
    assert {Chooser(Sampling()).choose(LOGITS).token for _ in range(5)} == {0}


def test_sampling_follows_the_distribution():
    shares = np.bincount(draw(), minlength=4) / 4000
    assert np.abs(shares - PROBABILITIES).max() < 0.03


def test_temperature_sharpens():
    wanted = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    shares = np.bincount(draw(temperature=0.5), minlength=4) / 4000
    assert np.abs(shares - wanted).max() < 0.03


def test_top_k_keeps_the_k_likeliest():
    assert set(draw(top_k=2)) == {0, 1}
    assert set(draw(top_k=1)) == {0}
    assert set(draw(top_k=99)) == {0, 1, 2, 3}


def test_top_p_keeps_the_smallest_nucleus_that_reaches_it():
    assert set(draw(top_p=0.45)) == {0}
    assert set(draw(top_p=0.6)) == {0, 1}
    assert set(draw(top_p=0.99)) == {0, 1, 2, 3}


def test_a_seed_repeats_and_another_differs():
    assert np.array_equal(draw(50, seed=7), draw(50, seed=7))
    assert not np.array_equal(draw(50, seed=7), draw(50, seed=8))
    assert not np.array_equal(draw(50, seed=None), draw(50, seed=None))


def test_scores_describe_the_distribution_before_temperature_and_cuts():
    score = Chooser(Sampling(temperature=0.1, top_k=1, seed=0)).choose(LOGITS)
    assert score.logprob == pytest.approx(math.log(0.5), abs=1e-5)
    assert score.entropy == pytest.approx(-(PROBABILITIES * np.log(PROBABILITIES)).sum(), abs=1e-5)
    assert score.margin == pytest.approx(math.log(2), abs=1e-5)
    second = score_token(LOGITS, token=2, top=0)
    assert second.logprob == pytest.approx(math.log(0.15), abs=1e-5)
    assert second.margin == score.margin


def test_scoring_leaves_the_logits_alone():
    before = LOGITS.copy()
    Chooser(Sampling(temperature=1.0)).choose(LOGITS)
    assert np.array_equal(LOGITS, before)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(broken):
    logits = LOGITS.copy()
    logits[1] = broken
    with pytest.raises(ShammahError, match="not numbers"):
        Chooser(Sampling()).choose(logits)


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ({"max_tokens": 0}, "1 or more"),
        ({"temperature": -0.1}, "0 to 2"),
        ({"temperature": 2.1}, "0 to 2"),
        ({"temperature": math.nan}, "0 to 2"),
        ({"top_k": -1}, "0 .*or more"),
        ({"top_p": 0.0}, "above 0, up to 1"),
        ({"top_p": 1.1}, "above 0, up to 1"),
        ({"seed": -1}, "0 to 18446744073709551615"),
        ({"stop": ("",)}, "1 to 256 characters"),
        ({"stop": ("x",) * 17}, "up to 16"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(setting, allowed):
    with pytest.raises(InvalidInputError, match=allowed):
        Sampling(**setting)
