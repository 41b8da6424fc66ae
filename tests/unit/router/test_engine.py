from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shammah_chassis.encoder import EncoderSession
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_router.engine import RouterEngine
from shammah_trainer.encoders.results import RouterHyper
from shammah_trainer.encoders.train_router import train_router
from support.encoders import base_router, describe, make_router_rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterEngine]:
    out = tmp_path_factory.mktemp("router")
    result = train_router(base_router()[0], make_router_rows(graded=True), out, hyper=RouterHyper(), seed=0)
    engine = RouterEngine(out, describe("router", out, result), 1)
    yield engine
    engine.close()


def test_release_0_knows_no_category_and_no_good_answer() -> None:
    folder, result = base_router()
    (answer,) = RouterEngine(folder, describe("router", folder, result)).route(["what is the capital of France?"])
    assert (answer.category, answer.category_probability, answer.local_probability) == ("", 0.0, 0.0)
    assert np.linalg.norm(answer.embedding) == pytest.approx(1.0, abs=1e-5)


def test_queries_get_the_category_they_are_like(trained: RouterEngine) -> None:
    bank, table = trained.route(["my card was lost 7", "book a table for two 8"])
    assert (bank.category, table.category) == ("bank", "table")
    assert bank.local_probability > 0.5 > table.local_probability


def test_a_query_unlike_all_rows_has_no_category(trained: RouterEngine) -> None:
    (answer,) = trained.route(["привет мир 東京 と 京都 привет мир 東京 と 京都"])
    assert answer.category == ""
    assert answer.category_probability > 0.0


def test_a_floor_above_the_probability_empties_the_category(tmp_path: Path) -> None:
    result = train_router(base_router()[0], make_router_rows(), tmp_path, hyper=RouterHyper(), seed=0)
    manifest = describe("router", tmp_path, result)
    strict = replace(manifest, config={**manifest.config, "category_floor": 1.1})
    assert RouterEngine(tmp_path, manifest).route(["my card was lost 7"])[0].category == "bank"
    assert RouterEngine(tmp_path, strict).route(["my card was lost 7"])[0].category == ""


def test_a_query_is_judged_the_same_alone_and_in_a_batch(trained: RouterEngine) -> None:
    queries = ["my card was lost", "book a table for two people at seven in the evening", "yes"]
    for alone, together in zip([trained.route([query])[0] for query in queries], trained.route(queries), strict=True):
        assert alone.category == together.category
        assert alone.local_probability == pytest.approx(together.local_probability, abs=1e-5)


def test_a_query_over_256_tokens_is_flagged(trained: RouterEngine) -> None:
    short, long = trained.route(["a table", "a table " * 200])
    assert (short.truncated, long.truncated) == (False, True)


@pytest.mark.parametrize("queries", [[], [" \n"]])
def test_nothing_to_route_is_refused(trained: RouterEngine, queries: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        trained.route(queries)


def test_another_role_and_too_many_labels_are_refused() -> None:
    folder, result = base_router()
    manifest = describe("router", folder, result)
    with pytest.raises(ArtifactError, match="validator"):
        RouterEngine(folder, replace(manifest, role="validator"))
    with pytest.raises(ArtifactError, match="65 labels"):
        RouterEngine(folder, replace(manifest, labels=tuple(f"c{number}" for number in range(65))))


def test_the_engine_reports_the_bytes_it_loaded() -> None:
    folder, result = base_router()
    manifest = describe("router", folder, result)
    exact = RouterEngine(folder, replace(manifest, config={**manifest.config, "precision": "fp32"}))
    stored = (folder / "model.safetensors").stat().st_size
    assert stored / 4 < RouterEngine(folder, manifest).resident_bytes < stored < exact.resident_bytes


def test_a_version_is_served_in_the_precision_that_it_was_calibrated_for() -> None:
    folder, result = base_router()
    manifest = describe("router", folder, result)
    assert manifest.config["precision"] == "int8"
    silent = {key: value for key, value in manifest.config.items() if key != "precision"}
    for version, precision in ((manifest, "int8"), (replace(manifest, config=silent), "fp32")):
        expected = EncoderSession(folder, threads=1, max_tokens=64, precision=precision).embed(["my card was lost"])
        np.testing.assert_array_equal(RouterEngine(folder, version).embed(["my card was lost"]), expected)
    with pytest.raises(ArtifactError, match="int4"):
        RouterEngine(folder, replace(manifest, config={**silent, "precision": "int4"}))
