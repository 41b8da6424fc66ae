"""Packed weights stand for the weights that were packed, wherever a row or a column ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.native import find_library
from shammah_generator.packing import find_shape, lay_out, pack, read_scales, unpack
from shammah_generator.pages import make_zeros

LIBRARY = find_library()
needs_library = pytest.mark.skipif(
    LIBRARY is None, reason="our own CPU operators are not built here, or can't run here"
)
SIZES = [(16, 64), (1, 1), (17, 65), (48, 96), (33, 200), (400, 128)]


def make_packed(weight, scheme):
    packed = make_zeros(find_shape(*weight.shape, scheme), np.uint8)
    with ThreadPoolExecutor(2) as pool:
        pack(weight, packed, library=LIBRARY, pool=pool)
    return packed


@needs_library
@pytest.mark.parametrize("size", SIZES)
def test_each_block_is_kept_to_half_a_step_of_its_own_scale(size):
    weight = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    weight[0] *= 1000  # a large row leaves the others alone
    found = unpack(make_packed(weight, "block"), *size, library=LIBRARY)
    padded = np.pad(weight, ((0, 0), (0, -size[1] % 32)))
    peaks = np.abs(padded).reshape(size[0], -1, 32).max(axis=2)
    # Half a step, and the rounding of the scale to 11 bits, which counts 127-fold at the peak.
    bound = np.repeat(peaks, 32, axis=1)[:, : size[1]] * (0.5 / 127 + 1 / 2048)
    assert (np.abs(found - weight) <= bound).all()


@needs_library
@pytest.mark.parametrize("size", SIZES)
def test_each_row_is_kept_to_half_a_step_of_its_scale(size):
    weight = np.random.default_rng(2).standard_normal(size).astype(np.float32)
    found = unpack(make_packed(weight, "row"), *size, library=LIBRARY)
    assert (np.abs(found - weight) <= np.abs(weight).max(axis=1, keepdims=True) * 0.5001 / 127).all()


@needs_library
@pytest.mark.parametrize("scheme", ["block", "row"])
def test_zeros_stay_zeros_and_what_is_no_number_is_seen(scheme):
    weight = np.zeros((20, 70), np.float32)
    assert not unpack(make_packed(weight, scheme), 20, 70, library=LIBRARY).any()
    weight[19, 69] = np.nan
    assert not np.isfinite(read_scales(make_packed(weight, scheme))).all()
    weight[19, 69] = np.inf
    assert not np.isfinite(read_scales(make_packed(weight, scheme))).all()


@pytest.mark.parametrize("precision", ["int8", "int8_fast"])
def test_weights_lie_apart_and_aligned(make_folder, precision):
    config = load_json(make_folder(layers=3) / "config.json")
    places = list(lay_out(Architecture.from_config(config), precision).values())
    # A rotated head is stored beside the tied table; one that is not is the table.
    assert len(places) == (1 if precision == "int8" else 2) + 5 * 3
    assert all(place.at % 64 == 0 for place in places)
    assert [place.end for place in places[:-1]] == [place.at for place in places[1:]]


def test_zeros_are_zeros_of_the_kind():
    made = make_zeros((3, 4), np.float16)
    assert made.dtype == np.float16 and made.shape == (3, 4) and not made.any()
