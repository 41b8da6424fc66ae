from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from shammah_generator.quantise import dequantise, quantise


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
