from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.manifest import describe_files
from shammah_trainer.encoders.base import load_validator
from shammah_trainer.encoders.results import GradedRow, IndexRow, RoleResult, TextRow, ValidatorHyper
from shammah_trainer.encoders.train_validator import train_validator
from shammah_validator.engine import ValidateItem, ValidatorEngine
from support.encoders import base_validator, describe, make_graded_rows, measure_auroc

TEXTS = [
    TextRow(
        f"is {number} a number", "yes" if number % 2 else "the quick brown fox jumps", "bank" if number % 2 else "table"
    )
    for number in range(80)
]
HYPER = ValidatorHyper(max_pairs=60, learning_rate=1e-3, head_learning_rate=1e-2)


def train(
    out: Path,
    texts: list[TextRow],
    graded: list[GradedRow],
    hyper: ValidatorHyper = HYPER,
    index: Sequence[IndexRow] = (),
) -> tuple[ValidatorEngine, RoleResult]:
    result = train_validator(base_validator()[0], texts, graded, out, hyper=hyper, seed=0, index=index)
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


def make_label_rows(count: int) -> tuple[list[IndexRow], list[GradedRow]]:
    """Return examples whose first word decides the label, and rollouts that are good when they give that label.

    The statistics are the same for all, so only the examples can tell good from bad.
    """
    words, labels = ("card", "table", "evening"), ("lost", "booked", "closed")
    index, graded = [], []
    generator = np.random.default_rng(0)
    for number in range(count):
        kind = number % 3
        query = f"{words[kind]} {words[kind]} {words[kind]}"
        index.append(IndexRow(f"e{number}", f"{query} {number}", labels[kind], "bank"))
        given = int(generator.integers(3))
        graded.append(GradedRow(f"{query} {number + 1000}", labels[given], "bank", [-1.0] * 10, given == kind))
    return index, graded


def test_the_nearest_examples_tell_a_wrong_label_from_a_right_one(tmp_path: Path) -> None:
    index, graded = make_label_rows(90)
    engine, result = train(tmp_path, [], graded, index=index)
    assert result.metrics["index_rows"] == 90
    assert "neighbours.npz" in describe_files(tmp_path)
    assert result.metrics["quality_auroc"] > 0.95
    _, without = train(tmp_path / "without", [], graded)
    assert without.metrics["quality_auroc"] < 0.8
    right, wrong = engine.validate(
        [ValidateItem("card card card 5", label, "bank", [-1.0] * 10) for label in ("lost", "booked")]
    )
    assert right.quality > 0.8 > 0.2 > wrong.quality


def test_an_example_whose_query_was_graded_is_not_in_the_index(tmp_path: Path) -> None:
    index, graded = make_label_rows(12)
    engine, _ = train(tmp_path, [], graded, index=[*index, IndexRow("same", graded[0].query.upper(), "lost", "bank")])
    assert engine._neighbours.index is not None
    assert engine._neighbours.index.holds("e0")
    assert not engine._neighbours.index.holds("same")


def test_a_round_without_examples_leaves_no_index_of_a_stopped_one_behind(tmp_path: Path) -> None:
    index, graded = make_label_rows(12)
    train(tmp_path, [], graded, index=index)
    engine, result = train(tmp_path, [], graded)
    assert result.config["index_rows"] == engine._neighbours.rows == 0


def make_crossed_rows(count: int) -> list[GradedRow]:
    """Return rollouts that are good when entropy and margin agree in sign: a line can't part them."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        first, second = generator.normal(size=2)
        statistics = [0.0] * 5 + [float(first), 0.0, 0.0, float(second), 30.0]
        rows.append(GradedRow(f"a query {number}", "yes", "bank", statistics, bool(first * second > 0)))
    return rows


def test_small_networks_are_taken_where_they_rank_better_and_only_with_enough_rows(tmp_path: Path) -> None:
    engine, many = train(tmp_path / "many", [], make_crossed_rows(400))
    _, few = train(tmp_path / "few", [], make_crossed_rows(200))
    assert (many.metrics["quality_head"], few.metrics["quality_head"]) == ("networks", "logistic")
    assert many.metrics["quality_auroc"] > 0.8 > 0.65 > few.metrics["quality_auroc"]
    rows = make_crossed_rows(440)[400:]
    answers = engine.validate([ValidateItem(row.query, row.response, row.category, row.statistics) for row in rows])
    assert measure_auroc([row.good for row in rows], [answer.quality for answer in answers]) > 0.8


def test_contradictory_grades_of_one_query_give_an_even_quality_and_no_accepted_share(tmp_path: Path) -> None:
    row = make_graded_rows(1)[0]
    engine, result = train(tmp_path, [], [replace(row, good=number % 2 == 0) for number in range(40)])
    (answer,) = engine.validate([ValidateItem(row.query, row.response, row.category, row.statistics)])
    assert answer.quality == pytest.approx(0.5, abs=0.05)
    assert result.metrics["quality_accepted_share"] == 0.0
