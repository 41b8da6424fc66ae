from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_generator.constraint import Constraint
from shammah_generator.sampling import Chooser, Sampling
from shammah_generator.scores import score_token

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.1])
LOGITS = (np.log(PROBABILITIES) + 3.0).astype(np.float32)


class Allowing:
    """A guide that always allows the same tokens, without a grammar."""

    def __init__(self, *tokens):
        self._tokens = np.array(tokens)
        self.accepted = []

    def allowed(self):
        return self._tokens

    def accept(self, token):
        self.accepted.append(token)


def constrain(*tokens, **changes):
    return Chooser(Sampling(constraint=Constraint(labels=("a",)), **changes), Allowing(*tokens))


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
    assert second.top_logprob == score.top_logprob == pytest.approx(math.log(0.5), abs=1e-5)
    assert (second.allowed_logprob, second.forced) == (None, False)


def test_a_constrained_greedy_choice_is_the_likeliest_allowed_token():
    score = constrain(1, 2, 3).choose(LOGITS)
    assert (score.token, score.forced) == (1, True)
    free = constrain(0, 3).choose(LOGITS)
    assert (free.token, free.forced) == (0, False)


def test_a_constrained_choice_is_scored_under_the_free_distribution():
    score = constrain(2, 3).choose(LOGITS)
    assert score.logprob == pytest.approx(math.log(0.15), abs=1e-5)
    assert score.top_logprob == pytest.approx(math.log(0.5), abs=1e-5)
    assert score.allowed_logprob == pytest.approx(math.log(0.25), abs=1e-5)
    assert score.entropy == pytest.approx(Chooser(Sampling()).choose(LOGITS).entropy)


def test_constrained_sampling_follows_the_distribution_within_what_is_allowed():
    chooser = constrain(1, 2, 3, temperature=1.0, seed=4)
    shares = np.bincount([chooser.choose(LOGITS).token for _ in range(4000)], minlength=4) / 4000
    assert np.abs(shares - [0, 0.5, 0.3, 0.2]).max() < 0.03


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 0.4}])
def test_cuts_apply_to_what_is_allowed_so_something_always_is(cut):
    chooser = constrain(2, 3, temperature=1.0, seed=4, **cut)
    assert {chooser.choose(LOGITS).token for _ in range(50)} == {2}


def test_a_guide_is_told_what_was_chosen():
    guide = Allowing(1, 3)
    chooser = Chooser(Sampling(constraint=Constraint(labels=("a",))), guide)
    scores = [chooser.choose(LOGITS), chooser.choose(LOGITS[::-1].copy())]
    assert guide.accepted == [score.token for score in scores] == [1, 3]


def test_an_allowed_token_that_is_all_but_impossible_still_has_a_finite_score():
    logits = np.array([300.0, 0.0, -1.0], dtype=np.float32)
    score = constrain(1, 2).choose(logits)
    assert score.logprob == pytest.approx(-300)
    assert score.allowed_logprob == pytest.approx(-300 + math.log(1 + math.exp(-1)), abs=1e-3)


def test_a_constraint_without_its_guide_is_refused():
    with pytest.raises(ShammahError, match="compiled guide"):
        Chooser(Sampling(constraint=Constraint(labels=("a",))))
    with pytest.raises(ShammahError, match="its constraint"):
        Chooser(Sampling(), Allowing(0))


def cut_plainly(logits, *, temperature, top_k, top_p):
    """Return the probabilities after the cuts, in the most obvious way."""
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    if top_k:
        order = order[:top_k]
    weights = np.exp((logits[order] - logits.max()).astype(np.float64) / temperature)
    weights /= weights.sum()
    size = int(np.searchsorted(np.cumsum(weights), top_p)) + 1 if top_p < 1 else len(order)
    out = np.zeros(logits.size)
    out[order[:size]] = weights[:size] / weights[:size].sum()
    return out


@settings(deadline=None, max_examples=60)
@given(
    size=st.sampled_from([5, 64, 300, 2049]),
    spread=st.sampled_from([0.1, 2.0, 8.0]),
    top_k=st.sampled_from([0, 1, 7, 40, 500]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_a_draw_from_a_long_row_is_the_one_that_the_plain_way_gives(size, spread, top_k, top_p, seed):
    logits = (spread * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)
    shares = cut_plainly(logits, temperature=0.8, top_k=top_k, top_p=top_p)
    chooser = Chooser(Sampling(temperature=0.8, top_k=top_k, top_p=top_p, seed=seed))
    drawn = np.array([chooser.choose(logits).token for _ in range(200)])
    kept = np.flatnonzero(shares)
    # The last place of a nucleus hangs on a rounding where it is reached exactly.
    assert np.isin(drawn, kept).mean() > 0.99
    assert abs(np.mean(shares[drawn]) - (shares**2).sum()) < 6 * shares[drawn].std() / math.sqrt(200) + 0.02


def test_scoring_leaves_the_logits_alone():
    before = LOGITS.copy()
    Chooser(Sampling(temperature=1.0)).choose(LOGITS)
    assert np.array_equal(LOGITS, before)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_an_error(broken):
    logits = LOGITS.copy()
    logits[1] = broken
    for chooser in (Chooser(Sampling()), Chooser(Sampling(temperature=1.0)), constrain(0, 2)):
        with pytest.raises(ShammahError, match="not numbers"):
            chooser.choose(logits)


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
