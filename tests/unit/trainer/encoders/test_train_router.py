from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.manifest import describe_files
from shammah_router.engine import RouterEngine
from shammah_trainer.encoders.results import RoleResult, RouterHyper, RouterRow
from shammah_trainer.encoders.train_router import train_router
from support.encoders import base_router, describe, make_router_rows


def train(out: Path, rows: list[RouterRow], parent: Path | None = None) -> tuple[RouterEngine, RoleResult]:
    result = train_router(parent or base_router()[0], rows, out, hyper=RouterHyper(), seed=0)
    return RouterEngine(out, describe("router", out, result)), result


def test_a_round_lowers_the_loss_on_queries_it_did_not_train_on(tmp_path: Path) -> None:
    _, result = train(tmp_path, make_router_rows(graded=True))
    assert result.labels == ("bank", "table")
    assert result.loss_after < 0.5 * result.loss_before
    assert result.metrics["category_loss_after"] < result.metrics["category_loss_before"]
    assert result.metrics["local_loss_after"] < result.metrics["local_loss_before"]


@pytest.mark.parametrize("good", [True, False])
def test_rollouts_of_one_class_give_a_constant_prior(good: bool, tmp_path: Path) -> None:
    rows = [replace(row, local_good=good) for row in make_router_rows(18)]
    engine, result = train(tmp_path, rows)
    found = {round(answer.local_probability, 4) for answer in engine.route(["my card", "a table for two", "yes"])}
    assert found == {0.95 if good else 0.05}
    assert result.metrics["local_constant"]


def test_without_graded_rows_the_local_head_stays_as_it_was(tmp_path: Path) -> None:
    learned, _ = train(tmp_path / "a", make_router_rows(graded=True))
    kept, _ = train(tmp_path / "b", make_router_rows(), parent=tmp_path / "a")
    query = ["my card was lost 7"]
    assert kept.route(query)[0].local_probability == pytest.approx(learned.route(query)[0].local_probability, abs=0.05)


def test_a_category_without_rows_in_a_round_is_not_forgotten(tmp_path: Path) -> None:
    train(tmp_path / "a", make_router_rows())
    rows = [row for row in make_router_rows() if row.category == "table"]
    rows += [RouterRow(f"東京 と 京都 {number}", "tokyo") for number in range(20)]
    engine, result = train(tmp_path / "b", rows, parent=tmp_path / "a")
    assert result.labels == ("bank", "table", "tokyo")
    answers = engine.route(["my card was lost 7", "book a table for two 8", "東京 と 京都 3"])
    assert [answer.category for answer in answers] == ["bank", "table", "tokyo"]


def test_one_category_alone_knows_its_own_queries_from_unlike_ones(tmp_path: Path) -> None:
    rows = [row for row in make_router_rows(120) if row.category == "bank"]
    engine, _ = train(tmp_path, rows)
    own = "my card was lost 7"
    assert engine.route([own])[0].category == "bank"
    # Whether a random encoder refuses the unlike query is chance; that it is farther away is not.
    near, far = engine._session.run([own, "привет мир 東京 と 京都 привет мир"]).outputs["nearness"].max(axis=1)
    assert far < near


def test_the_embedding_is_that_of_the_base_after_a_round(tmp_path: Path) -> None:
    engine, _ = train(tmp_path, make_router_rows())
    folder, result = base_router()
    base = RouterEngine(folder, describe("router", folder, result))
    assert engine.embed(["a dog"])[0] == pytest.approx(base.embed(["a dog"])[0], abs=1e-6)


def test_the_same_rows_and_seed_make_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path / "a", make_router_rows(graded=True))
    train(tmp_path / "b", make_router_rows(graded=True))
    assert describe_files(tmp_path / "a") == describe_files(tmp_path / "b")


@pytest.mark.parametrize(
    "rows", [[], [RouterRow("a query", "")], [RouterRow(f"query {number}", f"c{number}") for number in range(65)]]
)
def test_no_rows_or_too_many_categories_are_refused(rows: list[RouterRow], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        train(tmp_path, rows)


def test_one_row_is_enough_to_train_on(tmp_path: Path) -> None:
    engine, result = train(tmp_path, [RouterRow("my card was lost", "bank", True)])
    assert result.labels == ("bank",)
    assert engine.route(["my card was lost"])[0].category == "bank"
