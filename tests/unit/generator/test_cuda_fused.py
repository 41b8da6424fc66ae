"""The graph of our own CUDA operators in a whole model, its kernels emulated on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shammah_chassis.errors import ShammahError
from shammah_generator import cuda_model
from shammah_generator.architecture import Architecture
from shammah_generator.chat import load_tokenizer
from shammah_generator.cuda_fused import build_fused_graph, can_fuse, lay_out_rows
from shammah_generator.cuda_model import CudaModel
from shammah_generator.model import read_config
from shammah_generator.session import count_bytes, open_session
from shammah_generator.weights import check_weights, read_weights
from support.emulating import build_emulated

ODD = {"hidden": 96, "heads": 6, "kv_heads": 2, "head_dim": 48, "intermediate": 136, "vocab": 401, "tied": False}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_emulated(tmp_path_factory.mktemp("emulated"))


def load(folder: Path, library: Path, *, few: int = 4) -> CudaModel:
    architecture = Architecture.from_config(read_config(folder))
    weights = read_weights(folder / "model.safetensors", architecture, precision="fp16", threads=1)
    weights = lay_out_rows(weights, architecture)
    graph = build_fused_graph(architecture, steps=cuda_model._RING, few=few)
    return CudaModel(
        open_session(graph, weights, threads=1, library=library),
        architecture=architecture,
        tokenizer=load_tokenizer(folder / "tokenizer.json"),
        slots=4,
        context=40,
        weight_bytes=count_bytes(weights),
        device="cpu",
    )


@pytest.mark.parametrize("few", [0, 4], ids=["cublas", "ours"])
@pytest.mark.parametrize("shape", [{}, ODD], ids=["grouped", "odd and untied"])
def test_prompts_and_steps_are_those_of_pytorch(
    shape: dict[str, object],
    few: int,
    make_folder: Callable[..., Path],
    library: Path,
    reference: Callable[..., np.ndarray],
) -> None:
    folder = make_folder(**shape)
    model = load(folder, library, few=few)
    random = np.random.default_rng(0)
    rows = [random.integers(0, 400, length).tolist() for length in (1, 9)]
    for slot, row in enumerate(rows):
        scores = model.prefill(model.slots, row)
        model.move(model.slots, slot)
        assert np.allclose(scores.logits(0), reference(folder, row)[-1], atol=0.05)
    scores = model.decode([7, 8], steps=3)
    for row, prompt in enumerate(rows):
        logits = reference(folder, [*prompt, row + 7, *scores.tokens[row][:-1]])[len(prompt) :]
        logprobs = torch.tensor(logits).log_softmax(-1).numpy()
        assert scores.tokens[row] == logits.argmax(-1).tolist()
        assert np.allclose(scores.logprobs[row], logprobs.max(-1), atol=0.05)
        assert np.allclose(scores.entropies[row], -(np.exp(logprobs) * logprobs).sum(-1), atol=0.05)
        ordered = np.sort(logits, -1)
        assert np.allclose(scores.margins[row], ordered[:, -1] - ordered[:, -2], atol=0.1)


def test_a_row_alone_is_what_it_is_beside_others(folder: Path, library: Path) -> None:
    answers = []
    for others in (0, 2):
        model = load(folder, library)
        for slot in range(1 + others):
            model.prefill(model.slots, [5 + slot, 6, 7])
            model.move(model.slots, slot)
        answers.append(model.decode([9, 10, 11][: 1 + others], steps=3).logprobs[0])
    assert answers[0] == answers[1]


def test_a_prompt_in_pieces_is_the_prompt(folder: Path, library: Path) -> None:
    model, ids = load(folder, library), list(range(20, 31))
    whole = model.prefill(4, ids).logits(0)
    model.prefill(5, ids[:4])
    assert np.allclose(model.prefill(5, ids[4:], past=4).logits(0), whole, atol=2e-2)


def test_weights_that_are_no_numbers_are_noticed(folder: Path, library: Path) -> None:
    model = load(folder, library)
    model.prefill(4, [1, 2])
    for name, cache in model._caches.items():
        if name.startswith("0."):
            cache.update_inplace(np.full(cache.shape(), np.nan, np.float16))
    with pytest.raises(ShammahError, match="not numbers"):
        model.prefill(4, [3], past=2)


def test_the_graph_has_five_operators_a_layer_and_declares_what_is_laid_out(folder: Path) -> None:
    architecture = Architecture.from_config(read_config(folder))
    graph = build_fused_graph(architecture, steps=8)
    kinds = Counter(node.op_type for node in graph.graph.node)
    layers = architecture.layers
    assert kinds == {
        "Gather": 1,
        "NormLinear": layers,
        "DecodeAttention": layers,
        "AddLinear": 2 * layers,
        "NormSwiglu": layers,
        "NormHead": 1,
        "ReadLogits": 1,
    }
    weights = read_weights(folder / "model.safetensors", architecture, precision="fp16", threads=1)
    laid = lay_out_rows(weights, architecture)
    check_weights(laid, {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer})
    assert laid.keys() == {tensor.name for tensor in graph.graph.initializer}
    assert all(array.flags.c_contiguous for array in laid.values())


def test_sizes_that_are_no_multiples_of_eight_are_left_to_onnx_runtime(make_folder: Callable[..., Path]) -> None:
    assert can_fuse(Architecture.from_config(read_config(make_folder())))
    assert not can_fuse(Architecture.from_config(read_config(make_folder(intermediate=100))))
