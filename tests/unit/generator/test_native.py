"""Our own CPU operators give what ONNX Runtime's give, alone as in company, and say what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from shammah_generator import native
from shammah_generator.graph_native import can_serve
from shammah_generator.model import GeneratorModel
from shammah_generator.packing import count_packed
from shammah_generator.weights import PACKED

needs_library = pytest.mark.skipif(
    native.find_library() is None, reason="our own CPU operators are not built here, or can't run here"
)
SHAPES = {
    "plain": {},
    "a vocabulary that ends inside a tile": {"vocab": 523},
    "grouped heads of 48": {"hidden": 96, "heads": 6, "kv_heads": 2, "head_dim": 48, "intermediate": 100},
    "untied, heads of 16": {
        "hidden": 160,
        "heads": 4,
        "kv_heads": 1,
        "head_dim": 16,
        "intermediate": 72,
        "tied": False,
    },
}
PROMPT = [5, 17, 200, 33, 90, 4, 4, 61, 300, 12, 7, 8, 9, 10, 11, 301, 302, 77, 78, 79, 80]


@pytest.fixture(params=SHAPES, scope="module")
def folder(request, make_folder):
    return make_folder(**SHAPES[request.param])


def load(folder, **settings):
    defaults = {"precision": "int8", "threads": 2, "slots": 48, "context": 64}
    return GeneratorModel.load(folder, **(defaults | settings))


def read_logits(model, ids):
    scores = model.prefill(0, ids)
    return np.stack([scores.logits(row) for row in range(len(ids))])


@needs_library
@pytest.mark.parametrize("precision", ["int8", "int8_fast"])
def test_logits_are_as_close_to_those_of_fp32_as_onnx_runtimes(folder, precision):
    ours = read_logits(load(folder, precision=precision, every_position=True), PROMPT)
    exact = read_logits(load(folder, precision="fp32", every_position=True), PROMPT)
    stock = read_logits(load(folder, precision=precision, every_position=True, kernels="onnxruntime"), PROMPT)
    assert np.abs(ours - exact).mean() < 0.1 * exact.std()
    assert np.abs(ours - exact).mean() < 1.3 * np.abs(stock - exact).mean() + 1e-6


@needs_library
@pytest.mark.parametrize("precision", ["int8", "int8_fast"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_is_the_same_to_the_bit_alone_and_among_any_number(folder, precision, threads):
    model = load(folder, precision=precision, threads=threads)
    rng = np.random.default_rng(3)
    prompts = [rng.integers(3, 300, rng.integers(1, 40)).tolist() for _ in range(40)]
    alone = []
    for prompt in prompts:
        model.prefill(0, prompt)
        alone.append(model.decode([7]).logits(0).copy())
    # 1 to 8 rows go by VNNI, more by AMX where the processor has it, and the rest of 16 by either.
    for count in (2, 3, 5, 8, 9, 16, 17, 24, 25, 31, 32, 40):
        for slot, prompt in enumerate(prompts[:count]):
            model.prefill(slot, prompt)
        together = model.decode([7] * count)
        for row in range(count):
            assert np.array_equal(together.logits(row), alone[row]), f"row {row} of {count}"


@needs_library
def test_a_prompt_in_pieces_is_the_prompt(folder):
    model = load(folder)
    whole = model.prefill(0, PROMPT).logits(0).copy()
    model.prefill(1, PROMPT[:7])
    model.prefill(1, PROMPT[7:8], past=7)
    pieces = model.prefill(1, PROMPT[8:], past=8).logits(0)
    assert np.array_equal(whole, pieces)


@needs_library
@pytest.mark.parametrize("threads", [1, 3])
def test_scores_are_those_of_the_logits(folder, threads):
    model = load(folder, threads=threads)
    for slot in range(20):
        model.prefill(slot, PROMPT[: slot + 1])
    scores = model.decode(list(range(3, 23)))
    for row in range(20):
        logits = scores.logits(row).astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        order = np.argsort(-logits, kind="stable")
        score = scores.read(row, 0)
        assert score.token == order[0]
        assert score.logprob == pytest.approx(np.log(shares[order[0]]), abs=1e-4)
        assert score.margin == pytest.approx(logits[order[0]] - logits[order[1]], abs=1e-5)
        assert score.entropy == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-3)


@needs_library
def test_a_row_that_is_no_number_leaves_the_others_alone(folder):
    model = load(folder)
    for slot in range(12):
        model.prefill(slot, PROMPT)
    expected = model.decode([9] * 12).logits(3).copy()
    for slot in range(12):
        model.prefill(slot, PROMPT)
    model._cache[:, 5, :, 2] = np.nan
    scores = model.decode([9] * 12)
    assert np.isnan(scores.read(5, 0).logprob)
    assert np.array_equal(scores.logits(3), expected)


@needs_library
def test_heads_that_the_operators_do_not_take_are_left_to_onnx_runtime(make_folder):
    model = load(make_folder(hidden=224, heads=2, kv_heads=1, head_dim=112, intermediate=64))
    assert not can_serve(model.architecture, "int8")
    assert model._cache.dtype == np.float32
    assert np.isfinite(model.prefill(0, PROMPT).logits(0)).all()


@needs_library
def test_what_does_not_fit_the_cache_is_refused_and_said(folder):
    model = load(folder)
    model.prefill(0, PROMPT)
    step = model._bind(0, np.array([PROMPT]))
    step.seqlens[0] = 64
    with pytest.raises(Exception, match="a row is longer than its slot"):
        model._session.run_with_iobinding(step.binding)
    step.ids[0, 0], step.seqlens[0] = model.architecture.vocab, 20
    with pytest.raises(Exception, match="no such token"):
        model._session.run_with_iobinding(step.binding)


def test_a_processor_without_the_instructions_is_told_apart(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu avx2 fma f16c bmi2\n")
    assert {"avx512f", "avx512_vnni"} <= native.find_missing_flags(cpuinfo)
    assert native.find_missing_flags(tmp_path / "none")


@needs_library
def test_cached_weights_that_are_not_those_of_the_graph_are_made_anew(folder, tmp_path):
    expected = load(folder, cache_dir=tmp_path).prefill(0, PROMPT).logits(0).copy()
    [cached] = tmp_path.iterdir()
    whole = cached.read_bytes()
    for found in ({PACKED: np.zeros(64, np.uint8)}, {"embedding.packed": np.zeros(64, np.uint8)}):
        save_file(found, cached)
        assert np.array_equal(load(folder, cache_dir=tmp_path).prefill(0, PROMPT).logits(0), expected)
        assert cached.read_bytes() == whole


@needs_library
def test_what_a_version_may_occupy_is_its_packed_weights_and_a_cache_of_halves(folder):
    model = load(folder)
    a = model.architecture
    positions = a.max_positions * a.head_dim // 2
    vectors = (2 * a.layers + 1) * a.hidden + 2 * positions
    assert model.kv_bytes == 2 * a.layers * (48 + 4) * a.kv_heads * 64 * a.head_dim * 2
    assert model.resident_bytes == model.kv_bytes + count_packed(a, "int8") + 4 * vectors


def test_a_library_that_can_t_be_had_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "find_missing_flags", lambda cpuinfo: frozenset())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = native.name_library()
    built.parent.mkdir(parents=True)
    built.write_text("cut")
    assert native.find_library.__wrapped__() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user is in no list
    assert native.name_library() is None
    assert native.find_library.__wrapped__() is None


def test_without_a_built_library_onnx_runtime_serves(tmp_path, folder):
    """In a process of its own, with an empty cache folder: the choice is made once for a process."""
    code = (
        "import sys; from pathlib import Path; from shammah_generator.model import GeneratorModel as M\n"
        "m = M.load(Path(sys.argv[1]), precision='int8', threads=1, slots=1, context=16)\n"
        "print(m._cache.dtype, m.prefill(0, [5, 6]).tokens)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("float32 [[")
