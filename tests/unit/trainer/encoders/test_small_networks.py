from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from shammah_trainer.encoders.logistic import fit_logistic
from shammah_trainer.encoders.networks import HIDDEN
from shammah_trainer.encoders.small_networks import (
    Networks,
    _Batch,
    _differentiate,
    _start,
    _Weights,
    fit_ensemble,
    train_networks,
)
from torch.nn.functional import binary_cross_entropy_with_logits

Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]


def make_rows(*, count: int = 600, crossed: bool) -> Rows:
    """Return features, labels and folds; `crossed`: only the product of the first two columns tells."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, 6))
    signal = features[:, 0] * features[:, 1] if crossed else np.zeros(count)
    labels = signal + 0.3 * generator.normal(size=count) > 0
    return features, labels, np.arange(count, dtype=np.int64) % 5


def test_an_interaction_that_no_logistic_regression_sees_is_learned() -> None:
    features, labels, folds = make_rows(crossed=True)
    assert fit_ensemble(features, labels, folds, seed=0).loss < 0.75 * fit_logistic(features, labels, folds).loss


def test_cross_fitted_scores_of_noise_know_nothing() -> None:
    features, labels, folds = make_rows(crossed=False)
    found = fit_ensemble(features, labels, folds, seed=0)
    assert found.loss > 0.68
    assert np.corrcoef(found.fitted, labels)[0, 1] < 0.15


def test_the_same_seed_makes_the_same_weights() -> None:
    features, labels, folds = make_rows(count=100, crossed=True)
    one, two = (fit_ensemble(features, labels, folds, seed=3) for _ in range(2))
    assert torch.equal(one.networks.wide, two.networks.wide)
    np.testing.assert_array_equal(one.fitted, two.fitted)


def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was() -> None:
    features, labels, folds = make_rows(count=100, crossed=True)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(fit_ensemble(features, labels, folds, seed=3))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0].fitted, found[1].fitted)


def test_columns_that_never_change_get_no_weight_and_change_nothing() -> None:
    features, labels, folds = make_rows(count=100, crossed=True)
    wider = np.concatenate([np.ones((100, 1)), features, np.zeros((100, 2))], axis=1)
    one, two = fit_ensemble(features, labels, folds, seed=3), fit_ensemble(wider, labels, folds, seed=3)
    np.testing.assert_array_equal(one.fitted, two.fitted)
    assert torch.equal(two.networks.wide[:, :, 1:7], one.networks.wide)
    assert not two.networks.wide[:, :, [0, 7, 8]].any()


def test_the_written_gradient_is_the_one_that_autograd_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    features, target = torch.randn(30, 4, generator=generator), torch.rand(30, generator=generator).round()
    seen = torch.rand(3, 30, generator=generator) > 0.3
    weights = _start(features, target, seen.float(), copies=1, generator=generator)
    gradient = _Weights(3, 4, features.device)
    batch = _Batch.draw(features, target, seen.float())
    _differentiate(weights, gradient, batch, torch.empty(3, HIDDEN, 30))
    found = gradient.as_networks()

    parts = weights.as_networks()
    leaves = [tensor.clone().requires_grad_(True) for tensor in (parts.wide, parts.wide_bias, parts.narrow, parts.bias)]
    logits = Networks(*leaves).logits(features)
    losses = binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    ((losses * seen).sum(dim=1) / seen.sum(dim=1)).sum().backward()
    for mine, leaf in zip((found.wide, found.wide_bias, found.narrow, found.bias), leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad)


def test_more_rows_than_a_batch_are_drawn_and_learned_from() -> None:
    features, labels, folds = make_rows(count=1500, crossed=True)
    assert fit_ensemble(features, labels, folds, seed=0).loss < 0.75 * fit_logistic(features, labels, folds).loss


def test_a_network_learns_only_from_rows_that_its_mask_shows() -> None:
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    target = (features[:, 0] > 0).float()
    seen = torch.ones(2, 200, dtype=torch.bool)
    seen[1, 100:] = False
    before = train_networks(features, target, seen, decays=[0.3], seed=0)
    target[100:] = 1 - target[100:]
    after = train_networks(features, target, seen, decays=[0.3], seed=0)
    assert not torch.allclose(before.wide[0], after.wide[0], atol=1e-3)
    torch.testing.assert_close(before.wide[1], after.wide[1])
