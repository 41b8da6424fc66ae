from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from shammah_generator.quantise import dequantise, quantise, quantise_rows


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.mark.parametrize("shape", [(3, 64), (700, 576), (5, 80), (1, 1)])
def test_the_error_is_at_most_half_a_step_of_each_block(pool, shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    quants, scales = quantise(weight, pool=pool)
    assert quants.shape == (shape[0], -(-shape[1] // 32), 32)
    back = dequantise(quants, scales, columns=shape[1])
    half_step = np.repeat(scales, 32, axis=1)[:, : shape[1]] / 2
    assert (np.abs(back - weight) <= half_step * 1.001).all()


def test_the_largest_value_of_a_block_is_exact_and_each_block_has_its_own_scale(pool):
    weight = np.full((1, 64), 0.5, np.float32)
    weight[0, 3], weight[0, 40] = -127.0, 1.0
    quants, scales = quantise(weight, pool=pool)
    assert quants[0, 0, 3] == 1
    assert scales.tolist() == [[1.0, pytest.approx(1 / 127)]]
    assert dequantise(quants, scales, columns=64)[0, 3] == -127.0


def test_a_block_of_zeros_stays_zero(pool):
    quants, scales = quantise(np.zeros((2, 32), np.float32), pool=pool)
    assert (quants == 128).all()
    assert not dequantise(quants, scales, columns=32).any()


def test_the_slices_do_not_show(pool):
    weight = np.random.default_rng(1).normal(size=(20_000, 64)).astype(np.float32)
    quants, scales = quantise(weight, pool=pool)
    part_quants, part_scales = quantise(weight[9000:9010], pool=pool)
    assert np.array_equal(quants[9000:9010], part_quants)
    assert np.array_equal(scales[9000:9010], part_scales)


@pytest.mark.parametrize("shape", [(3, 64), (700, 576), (5, 81), (1, 1)])
def test_the_error_by_rows_is_at_most_half_a_step_of_each_row(pool, shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[0] *= 100  # each row has its own scale
    quants, scales = quantise_rows(weight, pool=pool)
    assert (quants.shape, quants.dtype, scales.shape) == (shape[::-1], np.int8, shape[:1])
    back = quants.T.astype(np.float32) * scales[:, None]
    assert (np.abs(back - weight) <= scales[:, None] / 2 * 1.001).all()
    assert (np.abs(quants).max(axis=0) == 127).all()


def test_a_row_of_zeros_stays_zero(pool):
    quants, scales = quantise_rows(np.zeros((2, 40), np.float32), pool=pool)
    assert not quants.any()
    assert not scales.any()


@pytest.mark.parametrize("make", [quantise, quantise_rows])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_finite_number_shows_in_its_scale_and_in_no_other(pool, make, bad):
    weight = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    _, wanted = make(weight, pool=pool)
    weight[2, 40] = bad
    _, scales = make(weight, pool=pool)
    assert (~np.isfinite(scales)).sum() == 1
    assert np.isfinite(scales[[0, 1, 3, 4, 5]]).all()
    assert np.array_equal(scales[3:], wanted[3:])


def test_the_slices_of_rows_do_not_show(pool):
    weight = np.random.default_rng(1).normal(size=(9000, 64)).astype(np.float32)
    quants, scales = quantise_rows(weight, pool=pool)
    part_quants, part_scales = quantise_rows(weight[4090:4100], pool=pool)
    assert np.array_equal(quants[:, 4090:4100], part_quants)
    assert np.array_equal(scales[4090:4100], part_scales)
