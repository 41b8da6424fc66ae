"""Vectors that are computed once are those that router and index would compute, and scores from them are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shammah_chassis.encoder import WEIGHTS_NAME, EncoderSession
from shammah_chassis.errors import ArtifactError
from shammah_chassis.manifest import Manifest
from shammah_chassis.neighbours import LONGEST_QUERY, Floats, QueryEmbedder
from shammah_trainer.encoders.query_vectors import QueryVectors, same_body
from shammah_trainer.encoders.results import IndexRow, RouterHyper, TextRow, ValidatorHyper
from shammah_trainer.encoders.train_router import train_router
from shammah_trainer.encoders.train_validator import Means, train_validator
from shammah_trainer.network_scores import score_by_network
from shammah_trainer.router_heads import run_heads
from shammah_trainer.scoring import are_truncated, judge_responses, route_queries
from support.encoders import base_router, base_validator, describe, make_graded_rows, make_router_rows

ROWS = make_router_rows(40, graded=True)
QUERIES = [row.query for row in ROWS]


def make_manifest() -> Manifest:
    folder, result = base_router()
    manifest = describe("router", folder, result)
    return replace(manifest, config={**manifest.config, "precision": "int8"})


@pytest.fixture
def vectors() -> QueryVectors:
    return QueryVectors((base_router()[0], make_manifest()), base_validator()[0], threads=1)


def test_each_query_is_embedded_once(vectors: QueryVectors) -> None:
    embedder = QueryEmbedder(base_validator()[0], threads=1)
    expected = embedder.embed(QUERIES)
    embedder.close()
    assert np.allclose(vectors.embed(QUERIES), expected, atol=1e-6)
    vectors.close()
    vectors._validator = Path("/does/not/exist")  # anything new would have to be loaded from there
    assert np.allclose(vectors.embed(QUERIES[::-1]), expected[::-1], atol=1e-6)
    with pytest.raises(ArtifactError):
        vectors.embed(["never seen"])
    assert vectors.embed([]).shape == (0, 0)


def test_vectors_are_no_router_s_of_another_precision_or_body_or_of_long_queries(
    vectors: QueryVectors, tmp_path: Path
) -> None:
    manifest = make_manifest()
    assert vectors.serve_router(manifest, QUERIES)
    assert not vectors.serve_router(replace(manifest, config={**manifest.config, "precision": "fp32"}), QUERIES)
    assert not vectors.serve_router(manifest, ["a" * (LONGEST_QUERY + 1)])
    weights = load_file(base_router()[0] / WEIGHTS_NAME)
    name = next(name for name in weights if name.startswith("body."))
    save_file(weights | {name: weights[name] + 1}, tmp_path / WEIGHTS_NAME)
    assert same_body(base_router()[0], base_validator()[0])
    assert not same_body(tmp_path, base_validator()[0])
    assert not QueryVectors((tmp_path, manifest), base_validator()[0], threads=1).serve_router(manifest, QUERIES)


def test_a_router_taught_and_asked_by_vectors_is_the_same(vectors: QueryVectors, tmp_path: Path) -> None:
    train_router(base_router()[0], ROWS, tmp_path / "graph", hyper=RouterHyper(), seed=0)
    made = train_router(base_router()[0], ROWS, tmp_path / "router", hyper=RouterHyper(), seed=0, embed=vectors.embed)
    one, other = (load_file(tmp_path / name / WEIGHTS_NAME) for name in ("graph", "router"))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)
    manifest = describe("router", tmp_path / "router", made)
    asked = [*QUERIES, "zzz qqq unheard of"]
    plain = route_queries(tmp_path / "router", manifest, asked, threads=1)
    found = route_queries(tmp_path / "router", manifest, asked, threads=1, vectors=vectors)
    assert [row.category for row in found] == [row.category for row in plain]
    assert [row.truncated for row in found] == [row.truncated for row in plain]
    assert [r.local_probability for r in found] == pytest.approx([r.local_probability for r in plain], abs=1e-6)


def test_the_heads_alone_say_what_the_whole_graph_says() -> None:
    folder = base_router()[0]
    session = EncoderSession(folder, threads=1, max_tokens=256)
    outputs = session.run(QUERIES).outputs
    session.close()
    embedding: Floats = outputs["embedding"].astype(np.float32)
    for name, values in run_heads(folder, embedding).items():
        assert np.allclose(values, outputs[name], atol=1e-6), name
    with pytest.raises(ArtifactError):
        run_heads(folder / "nothing", embedding)


def test_a_validator_by_vectors_and_by_its_network_is_the_same(vectors: QueryVectors, tmp_path: Path) -> None:
    graded = make_graded_rows(60)
    texts = [TextRow(row.query, row.response, row.category) for row in graded]
    index = [IndexRow(f"e{n}", f"my savings card {n}", "yes" if n % 2 else "no", "bank") for n in range(20)]
    hyper, base = ValidatorHyper(max_seconds=60.0, max_pairs=8), base_validator()[0]
    out = tmp_path / "validator"
    made = train_validator(base, texts, graded, out, hyper=hyper, seed=0, index=index, means=Means(vectors=vectors))
    manifest = describe("validator", out, made)
    items = [(row.query, row.response, row.category, tuple(row.statistics)) for row in graded]
    plain = judge_responses(out, manifest, items, threads=1)
    found = judge_responses(out, manifest, items, threads=1, vectors=vectors)
    assert [row.quality for row in found] == pytest.approx([row.quality for row in plain], abs=1e-6)
    pairs = [(item[0], item[1]) for item in items]
    assert are_truncated(out, manifest, pairs) == [row.truncated for row in plain]
    extra = {
        "statistics": np.array([item[3] for item in items], dtype=np.float32),
        "has_statistics": np.ones(len(items), dtype=np.float32),
        "category": np.zeros((len(items), int(manifest.config["capacity"])), dtype=np.float32),
        "neighbours": np.zeros((len(items), 8), dtype=np.float32),
    }
    session = EncoderSession(out, threads=1, max_tokens=512)
    served = session.run(pairs, extra).outputs["quality"]
    network = score_by_network(out, session, pairs, extra, device="cpu")
    assert network is not None
    assert np.allclose(network, served, atol=1e-5)
    # Another version's weights: the graph has the last word.
    assert score_by_network(base, session, pairs, extra, device="cpu") is None
    session.close()
