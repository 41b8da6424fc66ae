"""The CUDA operators, emulated thread by thread, against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import kernels
from support.emulating import build_emulated, run_operator

WIDTH, OUTPUTS, VOCAB = 1600, 48, 401  # 200 pieces of 16 bytes: more than are loaded ahead, and no multiple of a warp


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_emulated(tmp_path_factory.mktemp("emulated"))


def draw(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(np.float16)


@pytest.mark.parametrize("few", [0, 8], ids=["cublas", "ours"])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_products_with_what_stands_before_and_behind_them(library: Path, rows: int, few: int) -> None:
    x, gain, weight = draw(0, rows, 1, WIDTH), draw(1, WIDTH), draw(2, OUTPUTS, WIDTH)
    residual, common = draw(3, rows, 1, OUTPUTS), {"few": few, "early": 1}
    normed = kernels.normalise(x, gain)
    wanted = {
        "NormLinear": kernels.multiply(normed, weight),
        "NormSwiglu": kernels.gate(kernels.multiply(normed, weight)),
        "NormHead": kernels.multiply(normed, weight)[:, -1],
    }
    for kind, right in wanted.items():
        made = run_operator(library, kind, [x, gain, weight], epsilon=kernels.EPSILON, **common)[0]
        assert np.allclose(made, right, atol=2e-2, rtol=1e-2), kind
    (made,) = run_operator(library, "AddLinear", [x, weight, residual], **common)
    assert np.allclose(made, kernels.multiply(x, weight) + residual, atol=2e-2, rtol=1e-2)


def test_the_head_reads_the_last_position_of_a_prompt(library: Path) -> None:
    x, gain, weight = draw(0, 1, 5, 64), draw(1, 64), draw(2, VOCAB, 64)
    for few in (0, 4):
        made = run_operator(library, "NormHead", [x, gain, weight], epsilon=kernels.EPSILON, few=few, early=0)[0]
        assert np.allclose(made, kernels.multiply(kernels.normalise(x, gain), weight)[:, -1], atol=1e-2)


ATTENTION = {
    "small heads": (4, 2, 16, 2, 1, 20),
    "three heads a kv head, few rows": (9, 3, 64, 2, 1, 300),
    "three heads a kv head, many rows": (9, 3, 64, 20, 1, 70),
    "a prompt": (9, 3, 64, 1, 5, 40),
    "heads of 48": (8, 2, 48, 9, 1, 33),
    "many heads": (64, 16, 16, 4, 1, 40),
    "heads of 128": (4, 4, 128, 1, 3, 20),
    "heads of 256": (2, 1, 256, 2, 1, 12),
    "two heads a kv head": (8, 4, 16, 22, 1, 20),
    "no grouping, many rows": (4, 4, 64, 50, 1, 9),
    "several prompts": (4, 2, 32, 3, 4, 30),
}


@pytest.mark.parametrize("sizes", ATTENTION.values(), ids=ATTENTION)
def test_attention_appends_and_never_reads_behind_the_end(library: Path, sizes: tuple[int, ...]) -> None:
    heads, kv_heads, size, batch, tokens, room = sizes
    random = np.random.default_rng(0)
    lengths = random.integers(tokens - 1, room, batch).astype(np.int32)
    lengths[0] = tokens - 1  # an empty row
    angles = random.standard_normal((room, size // 2))
    cos, sin = np.cos(angles).astype(np.float16), np.sin(angles).astype(np.float16)
    keys, values = (random.standard_normal((batch, kv_heads, room, size)).astype(np.float16) for _ in range(2))
    for row, length in enumerate(lengths):
        keys[row, :, length + 1 - tokens :] = values[row, :, length + 1 - tokens :] = np.nan
    qkv = random.standard_normal((batch, tokens, (heads + 2 * kv_heads) * size)).astype(np.float16)
    made = run_operator(library, "DecodeAttention", [qkv, lengths, cos, sin, keys, values], heads=heads, early=1)
    wanted = kernels.attend(qkv, lengths, cos, sin, keys, values)
    for found, right in zip(made, wanted, strict=True):
        assert np.allclose(found, right, atol=5e-3, equal_nan=True)
    assert np.isfinite(made[0]).all()


@pytest.mark.parametrize("rows, vocab", [(1, 512), (3, VOCAB), (1, 7), (40, VOCAB)])
def test_the_readout_writes_one_place_of_the_ring(library: Path, rows: int, vocab: int) -> None:
    random = np.random.default_rng(0)
    logits = (random.standard_normal((rows, vocab)) * 5).astype(np.float32)
    lengths = np.arange(13, 13 + rows, dtype=np.int32)
    ring = random.standard_normal((8, rows, 4)).astype(np.float32)
    ids, counted, written, _ = run_operator(library, "ReadLogits", [logits, lengths, ring], early=1)
    wanted = ring.copy()
    wanted[13 % 8] = kernels.read(logits)
    assert np.allclose(written, wanted, atol=1e-5)
    assert ids[:, 0].tolist() == logits.argmax(1).tolist()
    assert counted.tolist() == (lengths + 1).tolist()


def test_what_is_no_number_spoils_its_own_row_only(library: Path) -> None:
    logits = np.random.default_rng(0).standard_normal((4, VOCAB)).astype(np.float32)
    logits[1, 77], logits[2], logits[3] = np.nan, np.nan, np.inf
    ring = np.zeros((2, 4, 4), np.float32)
    ids, _, written, _ = run_operator(library, "ReadLogits", [logits, np.zeros(4, np.int32), ring], early=1)
    assert np.isfinite(written[0, 0]).all()
    assert np.isnan(written[0, 1:, 1]).all()
    assert ((ids >= 0) & (ids < VOCAB)).all()
    x, gain, weight = draw(0, 3, 1, 64), draw(1, 64), draw(2, OUTPUTS, 64)
    x[1, 0, 5] = np.nan
    made = run_operator(library, "NormLinear", [x, gain, weight], few=4, early=1, epsilon=kernels.EPSILON)[0]
    assert np.isnan(made[1]).all() and np.isfinite(made[[0, 2]]).all()


def test_sizes_that_the_kernels_do_not_take_are_refused(library: Path) -> None:
    with pytest.raises(Exception, match="multiple of 8"):
        run_operator(library, "AddLinear", [draw(0, 1, 1, 12), draw(1, 8, 12), draw(2, 1, 1, 8)], few=4, early=1)
