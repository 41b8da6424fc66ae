from __future__ import annotations

import numpy as np
import pytest
from shammah_trainer.encoders.logistic import fit_logistic, log_loss, solve_logistic, standardise

GENERATOR = np.random.default_rng(0)


def make_data(rows: int, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(rows, features))
    labels = generator.random(rows) < 1 / (1 + np.exp(-2 * values[:, 0]))
    return values, labels, np.arange(rows) % 5


def test_the_solution_has_no_gradient_left() -> None:
    values, labels, _ = make_data(200, 6)
    weight, bias = solve_logistic(values, labels, penalty=2.0)
    probability = 1 / (1 + np.exp(-(values @ weight + bias)))
    np.testing.assert_allclose(values.T @ (probability - labels) + 2.0 * weight, 0.0, atol=1e-3)


def test_a_fit_finds_the_feature_that_matters_and_is_calibrated() -> None:
    values, labels, folds = make_data(2000, 5)
    fit = fit_logistic(values, labels, folds)
    assert abs(fit.weight[0] - 2.0) < 0.3
    assert np.abs(fit.weight[1:]).max() < 0.25
    probability = 1 / (1 + np.exp(-(values @ fit.weight + fit.bias)))
    high = probability > 0.7
    assert labels[high].mean() == pytest.approx(probability[high].mean(), abs=0.05)


def test_more_features_than_rows_give_the_same_fit_as_solved_in_full() -> None:
    values, labels, folds = make_data(40, 90)
    fit = fit_logistic(values, labels, folds)
    weight, bias = solve_logistic(values, labels, penalty=fit.penalty)
    np.testing.assert_allclose(fit.weight, weight, atol=1e-4)
    assert fit.bias == pytest.approx(bias, abs=1e-4)


@pytest.mark.parametrize(("good", "bad", "prior"), [(8, 0, 0.9), (0, 8, 0.1), (0, 0, 0.5), (1, 7, 0.2)])
def test_too_few_rows_of_a_class_give_the_smoothed_prior(good: int, bad: int, prior: float) -> None:
    labels = np.array([True] * good + [False] * bad, dtype=np.bool_)
    fit = fit_logistic(GENERATOR.normal(size=(good + bad, 3)), labels, np.zeros(good + bad, dtype=np.int64))
    assert fit.constant
    assert not fit.weight.any()
    assert 1 / (1 + np.exp(-fit.bias)) == pytest.approx(prior)


def test_noise_is_no_better_than_a_guess_when_cross_fitted() -> None:
    generator = np.random.default_rng(5)
    values, labels = generator.normal(size=(60, 30)), generator.random(60) < 0.5
    assert fit_logistic(values, labels, np.arange(60) % 5).loss > 0.65


def test_standardising_keeps_a_constant_column_at_zero_and_cuts_outliers() -> None:
    values = np.array([[5.0, 0.0], [5.0, 0.0], [5.0, 100.0]] + [[5.0, 0.0]] * 60)
    standard, _, scale = standardise(values, clip=4.0)
    assert not standard[:, 0].any()
    assert scale[0] == 1.0
    assert standard[2, 1] == 4.0


def test_the_loss_of_a_coin_is_ln_2() -> None:
    assert log_loss(np.full(4, 0.5), np.array([True, False, True, True])) == pytest.approx(np.log(2))
