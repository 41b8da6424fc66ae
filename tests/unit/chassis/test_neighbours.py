from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shammah_chassis.errors import ArtifactError
from shammah_chassis.neighbours import (
    INDEX_NAME,
    NEIGHBOUR_FEATURES,
    NeighbourFinder,
    NeighbourIndex,
    hash_response,
    hash_text,
    load_index,
    quantise_rows,
    save_index,
    set_words,
)

ROWS = [
    ("a", [1.0, 0.0], "yes", "x"),
    ("b", [0.8, 0.6], "yes", "x"),
    ("c", [0.0, 1.0], "no", "x"),
    ("d", [1.0, 0.0], "the red fox runs", "y"),
]


def make_index() -> NeighbourIndex:
    embeddings, scales = quantise_rows(np.array([row[1] for row in ROWS], dtype=np.float32))
    return NeighbourIndex(
        examples=np.array([hash_text(row[0]) for row in ROWS]),
        embeddings=embeddings,
        scales=scales,
        responses=np.array([hash_response(row[2]) for row in ROWS]),
        words=np.stack([set_words(row[2]) for row in ROWS]),
        categories=("x", "y"),
        starts=(0, 3, 4),
    )


def ask(index: NeighbourIndex, query: list[float], category: str, response: str) -> dict[str, float]:
    (values,) = index.measure(np.array([query], dtype=np.float32), [category], [response])
    return dict(zip(NEIGHBOUR_FEATURES, map(float, values), strict=True))


def test_a_response_that_the_nearest_examples_gave_agrees_with_them() -> None:
    found = ask(make_index(), [1.0, 0.0], "x", " YES ")
    assert found["known"] == 1.0
    assert found["nearest_cosine"] == pytest.approx(1.0, abs=0.01)
    assert found["agreeing_share"] == pytest.approx(2 / 3)
    # cosines 1, 0.8 and 0 with a sharpness of 10
    weights = np.exp([0.0, -2.0, -10.0])
    assert found["agreeing_weight"] == pytest.approx(weights[:2].sum() / weights.sum(), abs=0.01)
    assert found["margin"] == pytest.approx(1.0, abs=0.01)
    assert found["seen"] == pytest.approx(np.log(3) / np.log(4))


def test_the_margin_is_negative_when_nearer_examples_answer_otherwise() -> None:
    found = ask(make_index(), [1.0, 0.0], "x", "no")
    assert found["margin"] == pytest.approx(-1.0, abs=0.01)
    assert found["agreeing_weight"] < 0.01
    assert 0 < found["seen"] < 1


def test_a_free_response_is_compared_by_its_words() -> None:
    same, near, far = (
        ask(make_index(), [1.0, 0.0], "y", text)["likeness"]
        for text in ("the red fox runs", "the red fox sleeps", "an answer of other words")
    )
    assert same == 1.0
    assert far < 0.4 < near == pytest.approx(0.75, abs=0.15)


def test_a_category_without_examples_gives_zeros() -> None:
    assert set(ask(make_index(), [1.0, 0.0], "z", "yes").values()) == {0.0}


def test_cosines_survive_eight_bits() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rounded, scales = quantise_rows(vectors)
    found = vectors @ (rounded * scales[:, None]).T
    assert np.abs(found - vectors @ vectors.T).max() < 0.01


def test_an_index_is_read_as_it_was_written_and_equal_ones_have_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    save_index(make_index(), tmp_path)
    save_index(make_index(), tmp_path / "other")
    assert (tmp_path / INDEX_NAME).read_bytes() == (tmp_path / "other" / INDEX_NAME).read_bytes()
    found = load_index(tmp_path)
    assert found is not None
    assert found.categories == ("x", "y")
    assert ask(found, [1.0, 0.0], "x", "yes") == ask(make_index(), [1.0, 0.0], "x", "yes")
    assert [found.holds(name) for name in ("a", "d", "e")] == [True, True, False]


def test_a_folder_without_an_index_answers_zeros_without_an_embedder(tmp_path: Path) -> None:
    finder = NeighbourFinder(tmp_path, threads=1)
    assert finder.rows == 0
    assert not finder.measure(["a"], ["x"], ["yes"]).any()


@pytest.mark.parametrize("damage", ["cut", "text", "shorter"])
def test_a_damaged_index_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    index = make_index()
    if damage == "shorter":
        object.__setattr__(index, "scales", index.scales[:2])
    save_index(index, tmp_path)
    path = tmp_path / INDEX_NAME
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("hello")
    with pytest.raises(ArtifactError, match=INDEX_NAME):
        load_index(tmp_path)
