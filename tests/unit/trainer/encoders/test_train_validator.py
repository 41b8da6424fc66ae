from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.manifest import describe_files
from shammah_trainer.encoders.base import load_validator
from shammah_trainer.encoders.results import GradedRow, RoleResult, TextRow, ValidatorHyper
from shammah_trainer.encoders.train_validator import train_validator
from shammah_validator.engine import ValidateItem, ValidatorEngine
from support.encoders import base_validator, describe, make_graded_rows

TEXTS = [
    TextRow(
        f"is {number} a number", "yes" if number % 2 else "the quick brown fox jumps", "bank" if number % 2 else "table"
    )
    for number in range(80)
]
HYPER = ValidatorHyper(max_pairs=60, learning_rate=1e-3, head_learning_rate=1e-2)


def train(
    out: Path, texts: list[TextRow], graded: list[GradedRow], hyper: ValidatorHyper = HYPER
) -> tuple[ValidatorEngine, RoleResult]:
    result = train_validator(base_validator()[0], texts, graded, out, hyper=hyper, seed=0)
    return ValidatorEngine(out, describe("validator", out, result)), result


def test_both_stages_lower_their_loss_on_rows_they_did_not_train_on(tmp_path: Path) -> None:
    _, result = train(tmp_path, TEXTS, make_graded_rows())
    assert result.labels == ("bank", "table")
    assert result.metrics["text_loss_after"] < result.metrics["text_loss_before"]
    assert result.metrics["quality_loss_after"] < 0.6 * result.metrics["quality_loss_before"]
    assert result.loss_after < result.loss_before
    assert result.metrics["pairs_trained"] == result.metrics["pairs"] == 60


@pytest.mark.parametrize("good", [True, False])
def test_rollouts_of_one_class_give_the_smoothed_prior(good: bool, tmp_path: Path) -> None:
    engine, result = train(tmp_path, [], [replace(row, good=good) for row in make_graded_rows(18)])
    items = [ValidateItem("a", "b", "bank", [float(number)] * 10) for number in (-50, 0, 50)]
    qualities = [answer.quality for answer in engine.validate([*items, ValidateItem("a", "b")])]
    assert qualities == pytest.approx([0.95 if good else 0.05] * 4, abs=1e-5)
    assert result.metrics["quality_constant"]


def test_without_graded_rows_only_the_text_scores_change(tmp_path: Path) -> None:
    engine, _ = train(tmp_path, TEXTS, [])
    (answer,) = engine.validate([ValidateItem("is 3 a number", "yes")])
    assert answer.quality == 0.5
    assert answer.on_topic != 0.5


@pytest.mark.parametrize(("layers", "moved"), [(0, [False, False]), (1, [False, True]), (2, [True, True])])
def test_only_the_asked_layers_are_trained_and_the_embedder_never(
    layers: int, moved: list[bool], tmp_path: Path
) -> None:
    engine, _ = train(tmp_path, TEXTS, [], replace(HYPER, layers=layers))
    old, new = load_validator(base_validator()[0])[0], load_validator(tmp_path)[0]
    assert [
        not np.array_equal(before.wide.weight.detach().numpy(), after.wide.weight.detach().numpy())
        for before, after in zip(old.tuned, new.tuned, strict=True)
    ] == moved
    folder, result = base_validator()
    base = ValidatorEngine(folder, describe("validator", folder, result))
    np.testing.assert_allclose(engine.embed(["a dog"]), base.embed(["a dog"]), atol=1e-6)


def test_a_spent_time_bound_trains_at_most_one_batch(tmp_path: Path) -> None:
    _, result = train(tmp_path, TEXTS, [], replace(HYPER, max_seconds=-1.0))
    assert result.metrics["pairs_trained"] == 0


def test_a_text_whose_query_was_graded_is_left_out_of_the_text_stage(tmp_path: Path) -> None:
    graded = make_graded_rows(20)
    texts = [TextRow(row.query.upper(), row.response, row.category) for row in graded]
    _, result = train(tmp_path, texts, graded)
    assert result.metrics["pairs"] == 0


def test_the_same_rows_and_seed_make_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path / "a", TEXTS[:20], make_graded_rows(30))
    train(tmp_path / "b", TEXTS[:20], make_graded_rows(30))
    assert describe_files(tmp_path / "a") == describe_files(tmp_path / "b")


def test_bad_input_is_refused_before_any_training(tmp_path: Path) -> None:
    short = [replace(make_graded_rows(1)[0], statistics=[1.0])]
    many = [replace(row, category=f"c{number}") for number, row in enumerate(TEXTS)]
    for texts, graded, hyper in (
        ([], [], HYPER),
        (TEXTS, [], replace(HYPER, layers=3)),
        ([], short, HYPER),
        (many, [], HYPER),
    ):
        with pytest.raises(InvalidInputError):
            train(tmp_path, texts, graded, hyper)
    assert not (tmp_path / "model.safetensors").exists()
