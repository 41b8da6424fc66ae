"""Int8 quantisation of weights in numpy: by block of inputs, or by output row.

Symmetric, values -127..127. By block: one float32 scale for each `BLOCK` neighbouring inputs of an output row, stored
as uint8 around the zero point 128, which is the default zero point of MatMulNBits and GatherBlockQuantized. By row: one
scale for each output, stored as int8. Where a weight is not a finite number, neither is its scale. It knows no files.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from shammah_generator.arrays import Floats
from shammah_generator.precision import BLOCK

ZERO_POINT = 128
_ELEMENTS_AT_ONCE = 1 << 18  # about 1 MB of float32: the passes over a slice stay in the L2 cache


def quantise(weight: Floats, *, pool: ThreadPoolExecutor) -> tuple[NDArray[np.uint8], Floats]:
    """Quantise a weight `[rows, columns]`, slices in parallel on `pool`.

    Returns:
        Quants uint8 `[rows, blocks, BLOCK]` and scales float32 `[rows, blocks]`; a short last block is padded.
    """
    rows, columns = weight.shape
    blocks = -(-columns // BLOCK)
    if columns % BLOCK:
        weight = np.pad(weight, ((0, 0), (0, blocks * BLOCK - columns)))
    quants = np.empty((rows, blocks, BLOCK), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    shaped = weight.reshape(rows, blocks, BLOCK)
    step = max(1, _ELEMENTS_AT_ONCE // (blocks * BLOCK))
    starts = range(0, rows, step)

    def fill(start: int) -> None:
        part = slice(start, start + step)
        _quantise_slice(shaped[part], quants[part], scales[part])

    list(pool.map(fill, starts))
    return quants, scales


def quantise_rows(weight: Floats, *, pool: ThreadPoolExecutor) -> tuple[NDArray[np.int8], Floats]:
    """Quantise a weight `[rows, columns]` with one scale for each row, slices in parallel on `pool`.

    Returns:
        Quants int8 `[columns, rows]` (transposed, as an integer matrix product wants them) and scales float32 `[rows]`.
    """
    rows, columns = weight.shape
    quants = np.empty((columns, rows), np.int8)
    scales = np.empty(rows, np.float32)
    step = max(1, _ELEMENTS_AT_ONCE // columns)

    def fill(start: int) -> None:
        part = weight[start : start + step]
        scale = np.maximum(part.max(axis=1), -part.min(axis=1)) / np.float32(127)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        scales[start : start + step] = scale
        with np.errstate(invalid="ignore"):
            quants[:, start : start + step] = np.rint(part * inverse[:, None]).astype(np.int8).T

    list(pool.map(fill, range(0, rows, step)))
    return quants, scales


def dequantise(quants: NDArray[np.uint8], scales: Floats, *, columns: int) -> Floats:
    """Return the float32 weight `[rows, columns]` that the quants stand for."""
    values = (quants.astype(np.float32) - ZERO_POINT) * scales[..., None]
    return values.reshape(len(quants), -1)[:, :columns]


def _quantise_slice(weight: Floats, quants: NDArray[np.uint8], scales: Floats) -> None:
    # NumPy reduces a short last axis slowly; pairwise halving keeps every step a long vector operation.
    peak = np.abs(weight)
    while peak.shape[-1] > 1:
        half = peak.shape[-1] // 2
        peak = np.maximum(peak[..., :half], peak[..., half:])
    scale = peak[..., 0] / np.float32(127)
    scales[...] = scale
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    with np.errstate(invalid="ignore"):
        scaled = weight * inverse[..., None]
        # Adding 128.5 and cutting is rounding to nearest: all values are positive by then.
        scaled += np.float32(ZERO_POINT + 0.5)
        np.copyto(quants, scaled, casting="unsafe")
