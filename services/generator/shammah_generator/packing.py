"""Int8 weights in the form that our own CPU operators read: 16 outputs by 64 inputs, scales beside them.

Symmetric, values -127..127. In the scheme "block" each 32 neighbouring inputs of an output share a float16 scale
(1.0625 bytes a weight); in "row" an output has one float32 scale. The library does the work; `cpu_linear.h` has the
layout. All weights of a version lie in one piece of memory. It knows shapes and numbers, no files.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Floats
from shammah_generator.native import Library
from shammah_generator.precision import PLANS, Plan, Precision, Scheme

TILE = 16
"""Outputs that lie together."""
_PAIR = 64
_WEIGHTS = _PAIR * TILE
_BLOCK_SCALES = 2 * TILE * 2
_ROW_SCALES = TILE * 4
_ELEMENTS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a packed weight lies among all: its first byte, a multiple of 64, and its shape."""

    at: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.at + math.prod(self.shape)


def lay_out(architecture: Architecture, precision: Precision) -> dict[str, Place]:
    """Return the places of all packed weights by name, in the order in which a step reads them."""
    places: dict[str, Place] = {}
    start = 0
    for name, scheme, rows, columns in _list_weights(architecture, PLANS[precision]):
        places[name] = Place(start, find_shape(rows, columns, scheme))
        start = places[name].end  # every shape ends at a multiple of 64
    return places


def count_packed(architecture: Architecture, precision: Precision) -> int:
    """Return the bytes of all packed weights."""
    return max(place.end for place in lay_out(architecture, precision).values())


def _list_weights(a: Architecture, plan: Plan) -> Iterator[tuple[str, Scheme, int, int]]:
    yield "embedding", "block", a.vocab, a.hidden
    if stores_head(a, plan):
        yield "head", plan.linears["head"], a.vocab, a.hidden
    for layer in range(a.layers):
        for kind, rows, columns in (
            ("qkv", a.query_width + 2 * a.kv_width, a.hidden),
            ("attention", a.hidden, a.query_width),
            ("gate", a.intermediate, a.hidden),
            ("up", a.intermediate, a.hidden),
            ("down", a.hidden, a.intermediate),
        ):
            yield f"layers.{layer}.{kind}", plan.linears[kind], rows, columns


def stores_head(architecture: Architecture, plan: Plan) -> bool:
    """Tell whether the head is stored: a tied one is the embedding, unless a norm's gain was folded into it."""
    return not architecture.tied or plan.rotated or plan.linears["head"] == "row"


def find_shape(rows: int, columns: int, scheme: Scheme) -> tuple[int, ...]:
    """Return the shape of a packed weight of `rows` outputs and `columns` inputs.

    It is `[tiles, units, 1088]` in the scheme "block" and `[tiles, units * 1024 + 64]` in "row".
    """
    tiles, units = -(-rows // TILE), -(-columns // _PAIR)
    if scheme == "block":
        return tiles, units, _WEIGHTS + _BLOCK_SCALES
    return tiles, units * _WEIGHTS + _ROW_SCALES


def pack(weight: Floats, packed: NDArray[np.uint8], *, library: Library, pool: ThreadPoolExecutor) -> None:
    """Quantise a weight `[rows, columns]` into `packed` (its shape tells the scheme), slices in parallel on `pool`.

    `packed` must begin at a multiple of 64 bytes. Where a weight is no finite number, neither is its scale.
    """
    weight = np.ascontiguousarray(weight, np.float32)
    rows, columns = weight.shape
    step = max(TILE, _ELEMENTS_AT_ONCE // columns // TILE * TILE)
    padded = len(packed) * TILE

    def fill(first: int) -> None:
        sizes = (rows, columns, *_find_form(packed), first, min(first + step, padded))
        library.functions.shammah_pack(_address(weight), *map(ctypes.c_int, sizes), _address(packed))

    list(pool.map(fill, range(0, padded, step)))


def unpack(packed: NDArray[np.uint8], rows: int, columns: int, *, library: Library) -> Floats:
    """Return the float32 weight `[rows, columns]` that the packed one stands for."""
    values = np.empty((rows, columns), np.float32)
    sizes = (*_find_form(packed), columns, rows)
    library.functions.shammah_unpack(_address(packed), *map(ctypes.c_int, sizes), _address(values))
    return values


def read_scales(packed: NDArray[np.uint8]) -> Floats:
    """Return all scales, in no order that matters."""
    if packed.ndim == 2:
        return packed[:, -_ROW_SCALES:].copy().view(np.float32)
    return packed[:, :, _WEIGHTS:].copy().view(np.float16).astype(np.float32)


def _find_form(packed: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the units of a tile, and 1 for the scheme "row"."""
    return (packed.shape[1], 0) if packed.ndim == 3 else (packed.shape[1] // _WEIGHTS, 1)


def _address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
