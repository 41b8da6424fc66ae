from __future__ import annotations

import math

import numpy as np
import pytest
from shammah_generator.scores import score_token
from shammah_generator.statistics import (
    CONSTRAINT_FEATURES,
    FEATURES,
    ConstraintStatistics,
    GenerationStatistics,
    StatisticsBuilder,
)

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.1])
LOGITS = (np.log(PROBABILITIES) + 3.0).astype(np.float32)


def test_statistics_sum_up_the_scores():
    builder = StatisticsBuilder(prompt_tokens=9)
    scores = [score_token(LOGITS, token=token, top=0) for token in (1, 0, 3)]
    for score in scores:
        builder.add(score)
    made = builder.build()
    logs = np.log(PROBABILITIES[[1, 0, 3]])
    assert made.sum_logprob == pytest.approx(logs.sum(), abs=1e-5)
    assert made.mean_logprob == pytest.approx(logs.mean(), abs=1e-5)
    assert made.min_logprob == pytest.approx(math.log(0.1), abs=1e-5)
    assert made.first_logprob == pytest.approx(math.log(0.25), abs=1e-5)
    assert made.entropy_max == pytest.approx(made.entropy_mean)
    assert made.margin_min == pytest.approx(math.log(2), abs=1e-5)
    assert (made.length, made.prompt_tokens) == (3, 9)


def test_features_have_a_fixed_order():
    assert FEATURES == (
        "sum_logprob",
        "mean_logprob",
        "min_logprob",
        "first_logprob",
        "length",
        "entropy_mean",
        "entropy_max",
        "margin_min",
        "margin_mean",
        "prompt_tokens",
    )
    assert GenerationStatistics(first_logprob=-2.0, length=3).as_features() == [0, 0, 0, -2, 3, 0, 0, 0, 0, 0]


def test_a_free_response_has_no_statistics_of_a_constraint():
    builder = StatisticsBuilder(prompt_tokens=2)
    builder.add(score_token(LOGITS, token=1, top=0))
    assert builder.build().constraint is None


def test_a_constrained_response_tells_how_far_the_model_was_from_writing_it():
    builder = StatisticsBuilder(prompt_tokens=2, constrained=True)
    for token, allowed in ((1, [1, 3]), (0, [0, 1])):
        builder.add(score_token(LOGITS, token=token, top=0, allowed=np.array(allowed)))
    made = builder.build()
    assert made.constraint.as_features() == pytest.approx(
        [1, 2 * math.log(0.5), math.log(0.35) + math.log(0.75)], abs=1e-5
    )
    assert made.sum_logprob == pytest.approx(math.log(0.25) + math.log(0.5), abs=1e-5)
    assert len(made.as_features()) == 10
    assert CONSTRAINT_FEATURES == ("forced_tokens", "unconstrained_sum_logprob", "allowed_sum_logprob")


def test_a_constrained_response_without_a_token_has_zeros():
    made = StatisticsBuilder(prompt_tokens=2, constrained=True).build()
    assert made.constraint == ConstraintStatistics()


def test_nothing_drawn_gives_zeros():
    assert StatisticsBuilder(prompt_tokens=4).build() == GenerationStatistics(prompt_tokens=4)
