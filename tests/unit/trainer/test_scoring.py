"""The trainer's scores are those of the serving engines, value for value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shammah_router.engine import RouterEngine
from shammah_trainer.encoders.results import IndexRow, RouterHyper, TextRow, ValidatorHyper
from shammah_trainer.encoders.train_router import train_router
from shammah_trainer.encoders.train_validator import train_validator
from shammah_trainer.scoring import SimilarityEncoder, judge_responses, route_queries
from shammah_validator.engine import ValidateItem, ValidatorEngine
from support.encoders import base_router, base_validator, describe, make_graded_rows, make_router_rows

QUERIES = [*(row.query for row in make_router_rows(12)), "zzz qqq unheard of", "word " * 400]


def test_routing_is_that_of_the_router_engine(tmp_path: Path) -> None:
    rows = make_router_rows(60, graded=True)
    result = train_router(base_router()[0], rows, tmp_path / "router", hyper=RouterHyper(), seed=0)
    manifest = describe("router", tmp_path / "router", result)
    engine = RouterEngine(tmp_path / "router", manifest, 1)
    expected = engine.route(QUERIES)
    found = route_queries(tmp_path / "router", manifest, QUERIES, threads=1)
    assert [row.category for row in found] == [row.category for row in expected]
    assert {"bank", "table"} <= {row.category for row in found}
    assert [row.truncated for row in found] == [row.truncated for row in expected]
    assert [row.local_probability for row in found] == pytest.approx([row.local_probability for row in expected])
    engine.close()


def test_routing_goes_by_the_precision_that_the_version_names(tmp_path: Path) -> None:
    hyper = RouterHyper(precision="fp32")
    rows = make_router_rows(60, graded=True)
    result = train_router(base_router()[0], rows, tmp_path / "router", hyper=hyper, seed=0)
    exact = describe("router", tmp_path / "router", result)
    rounded = replace(exact, config={**exact.config, "precision": "int8"})
    found = [
        [row.local_probability for row in route_queries(tmp_path / "router", manifest, QUERIES, threads=1)]
        for manifest in (exact, rounded)
    ]
    engine = RouterEngine(tmp_path / "router", exact, 1)
    assert found[0] == pytest.approx([row.local_probability for row in engine.route(QUERIES)], abs=1e-6)
    assert found[0] != pytest.approx(found[1], abs=1e-6)
    engine.close()


def test_the_similarity_grader_embeds_as_the_validator_does() -> None:
    folder, result = base_router()
    encoder = SimilarityEncoder(folder, describe("router", folder, result), threads=1)
    validator, made = base_validator()
    engine = ValidatorEngine(validator, describe("validator", validator, made), 1)
    assert np.allclose(encoder.embed(QUERIES[:3]), engine.embed(QUERIES[:3]), atol=1e-5)
    encoder.close()
    engine.close()


def test_judging_is_that_of_the_validator_engine(tmp_path: Path) -> None:
    graded = make_graded_rows(60)
    texts = [TextRow(row.query, row.response, row.category) for row in graded]
    hyper = ValidatorHyper(max_seconds=1.0, max_pairs=40)
    index = [IndexRow(f"e{n}", f"my savings card {n}", "yes" if n % 2 else "no", "bank") for n in range(20)]
    out = tmp_path / "validator"
    result = train_validator(base_validator()[0], texts, graded, out, hyper=hyper, seed=0, index=index)
    assert result.config["index_rows"] == 20
    manifest = describe("validator", tmp_path / "validator", result)
    engine = ValidatorEngine(tmp_path / "validator", manifest, 1)
    items = [(row.query, row.response, row.category, tuple(row.statistics)) for row in graded[:10]]
    items += [("a query", "  ", graded[0].category, tuple(graded[0].statistics)), ("a", "b", "unknown", (0.0,) * 10)]
    expected = engine.validate([ValidateItem(q, r, c, s) for q, r, c, s in items])
    found = judge_responses(tmp_path / "validator", manifest, items, threads=1)
    assert [row.quality for row in found] == pytest.approx([row.quality for row in expected])
    assert found[10].quality == 0.0
    engine.close()


def test_no_query_and_no_item_give_nothing() -> None:
    folder, result = base_router()
    assert route_queries(folder, describe("router", folder, result), [], threads=1) == []
    folder, result = base_validator()
    assert judge_responses(folder, describe("validator", folder, result), [], threads=1) == []


def test_a_base_router_knows_no_category_and_no_good_answer() -> None:
    folder, result = base_router()
    routed = route_queries(folder, describe("router", folder, result), QUERIES[:3], threads=1)
    assert {(row.category, row.local_probability) for row in routed} == {("", 0.0)}
