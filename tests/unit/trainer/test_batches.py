"""Packed batches: what a bin holds, and what is learned in it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from shammah_trainer.batches import (
    BinLimits,
    RowTable,
    SftRow,
    choose_shape,
    cut_row,
    fill_bin,
    plan_bins,
    plan_steps,
    split_step,
    tabulate,
    weigh,
)


def row(prompt: int, response: int, weight: float = 1.0) -> SftRow:
    ids = tuple(range(10, 10 + prompt + response))
    return SftRow(ids, (False,) * prompt + (True,) * response, weight)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(8, 256), st.integers(1, 16))
def test_bins_hold_every_row_once_within_their_limits(lengths: list[int], tokens: int, most: int) -> None:
    table = tabulate([row(length, 1 + length % 3) for length in lengths])
    limits = BinLimits(tokens, most, labels=40)
    bins = plan_bins(table, np.random.default_rng(0).permutation(len(table)), limits)
    assert sorted(np.concatenate(bins).tolist()) == list(range(len(lengths)))
    for chosen in bins:
        assert len(chosen) <= most
        # A single row may be larger than a limit; it is then alone.
        assert len(chosen) == 1 or table.lengths[chosen].sum() <= tokens
        assert len(chosen) == 1 or table.labels[chosen].sum() <= 40


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 30)), min_size=1, max_size=40), st.integers(16, 512))
def test_every_bin_of_a_plan_fits_the_chosen_shape(sizes: list[tuple[int, int]], tokens: int) -> None:
    table = tabulate([row(prompt, response) for prompt, response in sizes])
    limits, shape = choose_shape(table, BinLimits(tokens, 8))
    for step in plan_steps(table, epochs=1, limits=limits, per_step=1, seed=0):
        filled = fill_bin(table, step[0], total_weight=weigh(table, step), pad_id=2, shape=shape)
        assert len(filled.ids) == len(filled.places) == shape.tokens
        assert len(filled.bounds) == shape.segments + 1
        assert len(filled.at) == len(filled.targets) == len(filled.weights) == shape.labels
        assert filled.bounds[0] == 0
        assert filled.bounds[-1] == shape.tokens
        assert np.diff(filled.bounds).min() >= 0
        assert np.diff(filled.bounds).max() <= shape.longest
        assert filled.places.max() < shape.longest
        assert abs(filled.weights.sum() - 1) < 1e-5


def test_only_response_ids_are_targets_each_predicted_from_the_id_before() -> None:
    table = tabulate([row(1, 1, 5.0), row(3, 2)])
    filled = fill_bin(table, np.array([1, 0]), total_weight=7.0, pad_id=0, shape=None)
    assert filled.ids.tolist() == [10, 11, 12, 13, 14, 10, 11]
    assert filled.places.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert filled.bounds.tolist() == [0, 5, 7]
    assert filled.at.tolist() == [2, 3, 5]
    assert filled.targets.tolist() == [13, 14, 11]
    assert np.allclose(filled.weights * 7, [1, 1, 5])


def test_the_first_id_of_a_row_is_never_a_target() -> None:
    table = tabulate([SftRow((7, 8), (True, True)), SftRow((9,), (True,))])
    assert table.labels.tolist() == [1, 0]
    filled = fill_bin(table, np.array([0, 1]), total_weight=1.0, pad_id=0, shape=None)
    assert filled.targets.tolist() == [8]


def test_steps_differ_between_epochs_and_agree_for_a_seed() -> None:
    table = tabulate([row(3 + n % 7, 2) for n in range(50)])

    def plan(seed: int) -> list[list[int]]:
        steps = plan_steps(table, epochs=2, limits=BinLimits(64, 8), per_step=2, seed=seed)
        return [np.concatenate(step).tolist() for step in steps]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    flat = [index for step in plan(1) for index in step]
    assert sorted(flat[:50]) == sorted(flat[50:]) == list(range(50))
    assert flat[:50] != flat[50:]


def test_each_epoch_recalls_other_old_rows_at_most_one_for_each_new_one() -> None:
    new, old = [row(4, 2) for _ in range(5)], [row(5, 2) for _ in range(12)]

    def recalled(table: RowTable) -> list[set[int]]:
        steps = plan_steps(table, epochs=3, limits=BinLimits(10_000, 64), per_step=1, seed=3)
        epochs = [set(np.concatenate(step).tolist()) for step in steps]
        fresh = len(table) - table.replayed
        assert all(set(range(fresh)) <= epoch for epoch in epochs)
        return [{number for number in epoch if number >= fresh} for epoch in epochs]

    first, second, third = recalled(tabulate(new, old))
    assert (len(first), len(second), len(third)) == (5, 5, 5)
    assert first.isdisjoint(second) and len(first | second | third) == 12
    # A small reservoir is recalled whole; without new rows the old ones are all there is.
    assert recalled(tabulate(new, old[:2])) == [{5, 6}] * 3
    assert recalled(tabulate([], old)) == [set(range(12))] * 3
    assert recalled(tabulate(new)) == [set()] * 3


def test_a_split_step_holds_the_same_rows_in_smaller_bins() -> None:
    table = tabulate([row(10, 5) for _ in range(8)])
    step = plan_steps(table, epochs=1, limits=BinLimits(120, 8), per_step=1, seed=0)[0]
    smaller = split_step(table, step, BinLimits(120, 8).halved())
    assert [len(part) for part in smaller] == [4, 4]
    assert np.concatenate(smaller).tolist() == step[0].tolist()


def test_a_long_prompt_loses_its_head_and_a_long_response_is_left_out() -> None:
    cut = cut_row(row(10, 3), 6)
    assert cut is not None
    assert cut.ids == (17, 18, 19, 20, 21, 22)
    assert sum(cut.mask) == 3
    assert cut_row(row(2, 8), 6) is None
    assert cut_row(row(2, 4), 6) == row(2, 4)


def test_a_row_and_its_variants_take_turns() -> None:
    long, short = row(4, 3), row(2, 1)
    varied = SftRow((1, 2, 3), (False, True, True), 1.0, others=(long, short))
    table = tabulate([row(1, 1), varied], [SftRow((5, 6), (False, True), 2.0, others=(short,))])
    assert (len(table), table.tokens, table.replayed) == (3, 2 + 3 + 2, 1)
    lengths = []
    for step in plan_steps(table, epochs=4, limits=BinLimits(1000, 64), per_step=1, seed=0):
        (rows,) = step
        filled = fill_bin(table, rows, total_weight=weigh(table, step), pad_id=0, shape=None)
        assert filled.weights.sum() == np.float32(1.0)
        lengths.append(sorted(table.lengths[rows].tolist()))
    # The plain row has length 2; the varied one 3, 7, 3, 3; the old one 2, 3, 2, 3.
    assert lengths == [[2, 2, 3], [2, 3, 7], [2, 2, 3], [2, 3, 3]]


def test_variants_are_cut_too_or_left_out() -> None:
    kept = cut_row(SftRow((1, 2, 3), (False, True, True), 1.0, others=(row(6, 2), row(1, 9))), 4)
    assert kept is not None
    assert [len(other.ids) for other in kept.others] == [4]
