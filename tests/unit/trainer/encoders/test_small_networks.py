from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from shammah_trainer.encoders.logistic import fit_logistic
from shammah_trainer.encoders.small_networks import fit_ensemble, train_networks

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
