"""The graph of our own CUDA operators in a whole model, its kernels emulated on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_generator import cuda_model
from shammah_generator.architecture import Architecture
from shammah_generator.chat import load_tokenizer
from shammah_generator.cuda_fused import build_fused_graph, can_fuse, lay_out_rows
from shammah_generator.cuda_model import CudaModel
from shammah_generator.engine import Engine
from shammah_generator.model import read_config
from shammah_generator.requests import Request
from shammah_generator.sampling import Sampling
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


@pytest.mark.parametrize("few", [0, 4], ids=["cublas", "ours"])
def test_prompts_together_are_each_alone(few: int, folder: Path, library: Path) -> None:
    random = np.random.default_rng(1)
    prompts = [random.integers(0, 400, length).tolist() for length in (9, 2, 13)]
    together, alone = load(folder, library, few=few), load(folder, library, few=few)
    assert together.prefill_rows(0, prompts) == 3
    for slot, prompt in enumerate(prompts):
        alone.prefill(alone.slots, prompt[:-1])
        alone.move(alone.slots, slot)
    last = [prompt[-1] for prompt in prompts]
    for _ in range(2):
        one, other = together.decode(last, steps=8), alone.decode(last, steps=8)
        assert one.tokens == other.tokens
        assert np.allclose(one.logprobs, other.logprobs, atol=2e-2)
        last = [row[-1] for row in one.tokens]


def test_prompts_join_rows_that_decode_wherever_these_lie(folder: Path, library: Path) -> None:
    model, alone = load(folder, library), load(folder, library)
    prompts = [[7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18], [19, 20, 21]]
    model.prefill_rows(0, prompts[:3])
    model.decode([10, 13, 18], steps=2, more=True)
    # The first and the last row end: the middle one becomes the first, and what is idle lies around it.
    model.move(2, 0)
    model.move(1, 0)
    model.keep(1)
    assert model._physical[0] == 1
    joined = [[30, 31, 32], [40, 41]]
    count = model.prefill_rows(1, joined)
    assert count == 2
    assert model._physical[1:3] == [2, 3]
    first = alone.prefill(alone.slots, prompts[1])
    alone.move(alone.slots, 0)
    ids = first.tokens[0]
    ids = alone.decode(ids).tokens[0]
    scores = model.decode([ids[-1], 32, 41], steps=3)
    assert scores.tokens[0] == alone.decode(ids, steps=3).tokens[0]
    for row, prompt in enumerate(joined, 1):
        other = load(folder, library)
        begun = other.prefill(other.slots, prompt)
        other.move(other.slots, 0)
        expected = [begun.tokens[0][0], *other.decode(begun.tokens[0], steps=2).tokens[0]]
        assert scores.tokens[row] == expected


def test_an_engine_that_computes_prompts_together_answers_as_one_that_does_not(folder: Path, library: Path) -> None:
    random = np.random.default_rng(2)
    requests = [
        Request(
            prompt_ids=tuple(random.integers(0, 400, 2 + place % 7).tolist()),
            sampling=Sampling(max_tokens=1 + place % 3),
        )
        for place in range(9)
    ]
    answers = []
    for together in (True, False):
        model = load(folder, library)
        model.prompts_a_turn = model.slots
        model.joint_tokens *= together
        engine = Engine(model, queue_limit=1, prefill_tokens=model.context)
        try:
            answers.append([(done.token_ids, done.reason) for done in engine.generate_batch(requests)])
        finally:
            engine.close(0)
        assert engine.session_failures == 0
    assert answers[0] == answers[1]


def test_where_idle_slots_do_not_lie_together_fewer_prompts_are_taken(folder: Path, library: Path) -> None:
    model = load(folder, library)
    model.prefill_rows(0, [[1, 2], [3, 4]])
    model.move(1, 0)
    model.keep(1)
    # Physical 1 is in use; 0 is idle alone, and behind it are those of the rows and of prompts.
    assert model.prefill_rows(1, [[5, 6], [7, 8], [9, 10]]) == 3
    assert sorted(model._physical) == list(range(model.slots + model.staging))
    model._lengths[model.slots :] = 1  # prompts under way
    model.keep(2)
    assert 1 <= model.prefill_rows(2, [[5, 6], [7, 8]]) <= 2
    assert sorted(model._physical) == list(range(model.slots + model.staging))


def test_too_many_prompts_or_tokens_together_are_refused(folder: Path, library: Path) -> None:
    model = load(folder, library)
    for first, prompts in ((0, []), (0, [[1], [2, 3]]), (3, [[1, 2], [3, 4]]), (0, [[1] * 42]), (-1, [[1, 2]])):
        with pytest.raises(InvalidInputError, match="prompts"):
            model.prefill_rows(first, prompts)


def test_steps_computed_ahead_of_a_row_that_is_gone_are_not_those_of_the_next_in_its_place(
    folder: Path, library: Path
) -> None:
    model, alone = load(folder, library), load(folder, library)
    model.prefill_rows(0, [[1, 2, 3], [4, 5, 6]])
    first, last = (row[-1] for row in model.decode([3, 6], steps=2, more=True).tokens)
    model.keep(1)
    prompt = [9, 8, 7, 6, 5, last]
    model.prefill_rows(1, [prompt])
    assert model._physical[1] == 1
    alone.prefill_rows(0, [prompt])
    assert model.decode([first, last], steps=2).tokens[1] == alone.decode([last], steps=2).tokens[0]


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
