"""Batches: padded rows and the positions that are learned."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from shammah_trainer.batches import SftRow, collate, cut_row, plan_batches


def row(prompt: int, response: int, weight: float = 1.0) -> SftRow:
    ids = tuple(range(10, 10 + prompt + response))
    return SftRow(ids, (False,) * prompt + (True,) * response, weight)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(8, 256), st.integers(1, 16))
def test_batches_hold_every_row_once_within_budget(lengths: list[int], tokens: int, most: int) -> None:
    rows = [row(length, 1) for length in lengths]
    batches = plan_batches(rows, batch_tokens=tokens, max_rows=most, rng=random.Random(0))
    assert sorted(len(r.ids) for batch in batches for r in batch) == sorted(len(r.ids) for r in rows)
    for batch in batches:
        assert len(batch) <= most
        # A single row may be longer than the budget; it is then alone.
        assert len(batch) == 1 or max(len(r.ids) for r in batch) * len(batch) <= tokens


def test_only_response_ids_are_targets_each_predicted_from_the_id_before() -> None:
    batch = collate([row(3, 2), row(1, 1, 5.0)], pad_id=0, device=torch.device("cpu"))
    assert batch.ids.tolist() == [[10, 11, 12, 13, 14], [10, 11, 0, 0, 0]]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.positions.tolist() == [2, 3, 0]
    assert batch.targets.tolist() == [13, 14, 11]
    assert batch.weights.tolist() == [1.0, 1.0, 5.0]


def test_a_long_prompt_loses_its_head_and_a_long_response_is_left_out() -> None:
    cut = cut_row(row(10, 3), 6)
    assert cut is not None
    assert cut.ids == (17, 18, 19, 20, 21, 22)
    assert sum(cut.mask) == 3
    assert cut_row(row(2, 8), 6) is None
    assert cut_row(row(2, 4), 6) == row(2, 4)
