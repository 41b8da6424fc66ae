from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_router.engine import RouterEngine
from shammah_trainer.encoders.results import ValidatorHyper
from shammah_trainer.encoders.train_validator import train_validator
from shammah_validator.engine import ValidateItem, ValidatorEngine, binary_entropy
from support.encoders import base_router, base_validator, describe, make_graded_rows, measure_auroc

GOOD = [-1.2, -0.3, -0.6, -0.3, 4.0, 0.24, 0.48, 0.35, 0.7, 30.0]
BAD = [-6.0, -1.5, -3.0, -1.5, 4.0, 1.2, 2.4, 0.0, 0.0, 30.0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValidatorEngine]:
    out = tmp_path_factory.mktemp("validator")
    result = train_validator(base_validator()[0], [], make_graded_rows(), out, hyper=ValidatorHyper(), seed=0)
    loaded = ValidatorEngine(out, describe("validator", out, result), 1)
    yield loaded
    loaded.close()


def test_release_0_gives_the_prior_of_one_half() -> None:
    folder, result = base_validator()
    (answer,) = ValidatorEngine(folder, describe("validator", folder, result)).validate([ValidateItem("a", "b")])
    assert (answer.quality, answer.uncertainty, answer.coherence) == (0.5, 1.0, 0.5)


def test_quality_ranks_unseen_rollouts_by_their_statistics(engine: ValidatorEngine) -> None:
    rows = make_graded_rows(seed=1)
    answers = engine.validate([ValidateItem(row.query, row.response, row.category, row.statistics) for row in rows])
    assert measure_auroc([row.good for row in rows], [answer.quality for answer in answers]) > 0.8


def test_without_statistics_quality_comes_from_the_text_alone(engine: ValidatorEngine) -> None:
    good, bad, without = engine.validate(
        [ValidateItem("my card", "yes", "bank", statistics) for statistics in (GOOD, BAD, None)]
    )
    assert good.quality > 0.7 > 0.3 > bad.quality
    assert 0.3 < without.quality < 0.7


def test_uncertainty_is_the_entropy_of_the_quality(engine: ValidatorEngine) -> None:
    (answer,) = engine.validate([ValidateItem("my card", "yes", "bank", GOOD)])
    assert answer.uncertainty == pytest.approx(binary_entropy(answer.quality))
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0.0


def test_an_empty_response_has_no_quality(engine: ValidatorEngine) -> None:
    (answer,) = engine.validate([ValidateItem("my card", " ", "bank", GOOD)])
    assert (answer.quality, answer.on_topic) == (0.0, 0.0)


def test_an_unknown_category_is_judged_as_none(engine: ValidatorEngine) -> None:
    unknown, none = engine.validate([ValidateItem("my card", "yes", name, GOOD) for name in ("nobody knows", "")])
    assert unknown.quality == pytest.approx(none.quality, abs=1e-6)


def test_a_pair_over_512_tokens_is_flagged(engine: ValidatorEngine) -> None:
    answers = engine.validate([ValidateItem("my card", "yes"), ValidateItem("a card " * 50, "a dog " * 400)])
    assert [answer.truncated for answer in answers] == [False, True]


@pytest.mark.parametrize("statistics", [[1.0] * 9, [float("nan")] * 10, [float("inf")] * 10])
def test_statistics_that_are_not_ten_finite_numbers_are_refused(
    engine: ValidatorEngine, statistics: list[float]
) -> None:
    with pytest.raises(InvalidInputError, match="10 finite"):
        engine.validate([ValidateItem("a", "b", "bank", statistics)])


def test_no_item_and_an_empty_query_are_refused(engine: ValidatorEngine) -> None:
    for items in ([], [ValidateItem(" ", "b")]):
        with pytest.raises(InvalidInputError):
            engine.validate(items)


def test_embeddings_are_those_of_the_router_in_float32(engine: ValidatorEngine) -> None:
    folder, result = base_router()
    manifest = describe("router", folder, result)
    router = RouterEngine(folder, replace(manifest, config={**manifest.config, "precision": "fp32"}))
    texts = ["my card was lost", "yes"]
    np.testing.assert_allclose(engine.embed(texts), router.embed(texts), atol=1e-5)


def test_another_role_and_too_many_labels_are_refused() -> None:
    folder, result = base_validator()
    manifest = describe("validator", folder, result)
    with pytest.raises(ArtifactError, match="router"):
        ValidatorEngine(folder, replace(manifest, role="router"))
    with pytest.raises(ArtifactError, match="65 labels"):
        ValidatorEngine(folder, replace(manifest, labels=tuple(f"c{number}" for number in range(65))))
