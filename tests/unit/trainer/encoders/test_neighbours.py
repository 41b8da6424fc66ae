from __future__ import annotations

import numpy as np
from shammah_chassis.neighbours import QueryEmbedder
from shammah_trainer.encoders.neighbours import build_index, choose_rows
from shammah_trainer.encoders.results import IndexRow
from support.encoders import BANK, base_validator


def make_rows(count: int, category: str = "bank") -> list[IndexRow]:
    return [IndexRow(f"{category}{n}", f"{BANK[n % 5]} {n}", "yes" if n % 2 else "no", category) for n in range(count)]


def test_a_category_is_sampled_evenly_and_stays_while_rows_are_added() -> None:
    few = {row.id for row in choose_rows(make_rows(400), most=100)["bank"]}
    many = {row.id for row in choose_rows(make_rows(440), most=100)["bank"]}
    assert len(few) == len(many) == 100
    # A tenth more rows replaces about a tenth of the sample.
    assert len(few & many) >= 80
    assert 30 <= sum(int(name.removeprefix("bank")) < 200 for name in few) <= 70


def test_rows_without_a_category_a_query_or_a_response_are_left_out() -> None:
    rows = [IndexRow("a", "q", "r", ""), IndexRow("b", " ", "r", "x"), IndexRow("c", "q", " ", "x")]
    assert choose_rows(rows, most=10) == {}


def test_a_new_index_forgets_what_is_gone_and_embeds_only_what_is_new() -> None:
    embedder = QueryEmbedder(base_validator()[0], threads=1)
    rows = [*make_rows(20), *make_rows(10, "table")]
    first = build_index(rows, None, embedder, most=100)
    assert first is not None
    # The parent's embeddings are marked, so that what was taken over can be told from what was made anew.
    first.embeddings[:] = 7
    second = build_index([*rows[1:], IndexRow("new", "my savings card", "no", "bank")], first, embedder, most=100)
    assert second is not None
    assert [second.holds(name) for name in ("bank0", "bank1", "new", "table3")] == [False, True, True, True]
    assert sum(bool((row == 7).all()) for row in second.embeddings) == len(rows) - 1
    assert second.categories == ("bank", "table")
    assert second.starts == (0, 20, 30)


def test_a_query_finds_itself() -> None:
    embedder = QueryEmbedder(base_validator()[0], threads=1)
    rows = make_rows(30)
    index = build_index(rows, None, embedder, most=100)
    assert index is not None
    vectors = embedder.embed([row.query for row in rows])
    features = index.measure(vectors, ["bank"] * 30, [row.response for row in rows])
    np.testing.assert_allclose(features[:, 1], 1.0, atol=0.02)


def test_no_rows_make_no_index() -> None:
    assert build_index([], None, QueryEmbedder(base_validator()[0], threads=1), most=10) is None
