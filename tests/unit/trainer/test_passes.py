"""Packed rows compute what transformers' own model computes over padded rows: the same loss and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shammah_trainer.attention import Attention, attend
from shammah_trainer.batches import BinLimits, SftRow, choose_shape, fill_bin, tabulate, weigh
from shammah_trainer.flat_llama import run_block
from shammah_trainer.head_loss import HeadLoss, softmax_step
from shammah_trainer.passes import Passes, PassOptions, measure, stage
from shammah_trainer.student import load_student
from support.tiny import make_tiny_generator
from torch._dynamo.testing import CompileCounterWithBackend

CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def make_rows(count: int = 9) -> list[SftRow]:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(count):
        prompt, response = int(rng.integers(1, 40)), int(rng.integers(1, 9))
        ids = tuple(int(i) for i in rng.integers(3, 500, prompt + response))
        rows.append(SftRow(ids, (False,) * prompt + (True,) * response, (1.0, 3.0, 10.0)[n % 3]))
    return rows


def compute_padded(model: Any, rows: list[SftRow]) -> torch.Tensor:
    """The loss by transformers' forward over right-padded rows, without anything of ours."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + (2,) * (width - len(row.ids)) for row in rows])
    logits = model(input_ids=ids).logits.log_softmax(-1)
    total = weight = torch.zeros(())
    for index, row in enumerate(rows):
        for at, learn in enumerate(row.mask):
            if learn and at:
                total = total - row.weight * logits[index, at - 1, row.ids[at]]
                weight = weight + row.weight
    return total / weight


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("way", ["rows", "padded"])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", ["tied", "untied", "llama3"])
def test_loss_and_gradients_are_those_of_padded_rows(tmp_path: Path, way: Attention, fixed: bool, kind: str) -> None:
    rope = dict(LLAMA3) if kind == "llama3" else None
    model = load_student(make_tiny_generator(tmp_path / "g", tied=kind != "untied", rope=rope), device=CPU).model
    rows = make_rows()
    loss = compute_padded(model, rows)
    loss.backward()
    wanted = gradients(model)
    table = tabulate(rows)
    every = np.arange(len(rows))
    shape = choose_shape(table, BinLimits(len(table.ids) + 50, 16))[1] if fixed else None
    passes = Passes(model, longest=int(table.lengths.max()), shape=shape, options=PassOptions(), way=way)
    passes.chunk = 7  # several chunks, the last one shorter
    filled = fill_bin(table, every, total_weight=weigh(table, (every,)), pad_id=2, shape=shape)
    passes.add(stage(filled, shape=shape, device=CPU))
    assert float(passes.loss) == pytest.approx(float(loss.detach()), abs=1e-5)
    got = gradients(model)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, atol=1e-5, rtol=1e-4), name


def test_two_bins_add_up_to_the_gradient_of_one(tiny_generator: Path) -> None:
    model = load_student(tiny_generator, device=CPU).model
    table = tabulate(make_rows())
    every = np.arange(len(table))
    found = []
    for bins in ((every,), (every[:4], every[4:])):
        passes = Passes(model, longest=64, shape=None, options=PassOptions())
        for part in bins:
            filled = fill_bin(table, part, total_weight=weigh(table, bins), pad_id=2, shape=None)
            passes.add(stage(filled, shape=None, device=CPU))
        found.append((float(passes.loss), gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert all(torch.allclose(found[0][1][n], found[1][1][n], atol=1e-5, rtol=1e-4) for n in found[0][1])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_block_can_be_traced_as_one_graph_that_serves_all_layers(tiny_generator: Path) -> None:
    model = load_student(tiny_generator, device=CPU).model
    table = tabulate(make_rows())
    every = np.arange(len(table))
    shape = choose_shape(table, BinLimits(512, 16))[1]
    filled = fill_bin(table, every, total_weight=1.0, pad_id=2, shape=shape)
    passes = Passes(model, longest=64, shape=shape, options=PassOptions(), way="padded")
    staged = stage(filled, shape=shape, device=CPU)
    passes.add(staged)
    eager = (float(passes.loss), gradients(model))
    passes.loss.zero_()
    torch._dynamo.reset()
    seen = CompileCounterWithBackend("aot_eager")
    passes._block = torch.compile(run_block, backend=seen, dynamic=False, fullgraph=True)
    passes._softmax = torch.compile(softmax_step, backend="aot_eager", dynamic=False, fullgraph=True)
    passes.add(staged)
    torch._dynamo.reset()
    assert seen.frame_count == 1
    assert float(passes.loss) == pytest.approx(eager[0], abs=1e-4)
    traced = gradients(model)
    assert all(torch.allclose(traced[n], eager[1][n], atol=1e-4, rtol=1e-3) for n in traced)


def test_measure_counts_the_rows_that_greedy_decoding_would_answer(tiny_generator: Path) -> None:
    model = load_student(tiny_generator, device=CPU).model
    prompt = [5, 6, 7, 8]
    made = model.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False, eos_token_id=None)[0].tolist()
    mask = (False,) * 4 + (True,) * 4
    right = SftRow(tuple(made), mask)
    wrong = SftRow((*made[:-1], made[-1] + 1 if made[-1] < 500 else 3), mask)
    table = tabulate([right, wrong, right])
    passes = Passes(model, longest=16, shape=None, options=PassOptions())
    filled = fill_bin(table, np.arange(3), total_weight=1.0, pad_id=2, shape=None)
    _, weight, hits, rows = measure(passes, [filled])
    assert (weight, hits, rows) == (12.0, 2, 3)


def test_attention_gives_no_token_of_another_row_a_say() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(9, heads, 16, generator=generator) for heads in (4, 2, 2))
    bounds = torch.tensor([0, 4, 9], dtype=torch.int32)
    before = attend(query, key, value, bounds, longest=8, way="rows")
    padded = attend(query, key, value, bounds, longest=8, way="padded")
    assert torch.allclose(before, padded, atol=1e-5)
    value[:4] += 10
    after = attend(query, key, value, bounds, longest=8, way="rows")
    assert torch.equal(before[4:], after[4:])
    assert not torch.equal(before[:4], after[:4])


def test_the_head_loss_is_right_to_the_second_digit_of_numeric_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 6, dtype=torch.float64, generator=generator).float().requires_grad_()
    weight = torch.randn(11, 6, generator=generator).requires_grad_()
    targets, weights = torch.tensor([0, 3, 10, 3, 5]), torch.tensor([0.1, 0.4, 0.2, 0.0, 0.3])
    loss = HeadLoss.apply(hidden, weight, targets, weights, 2, softmax_step)
    (2 * loss).backward()
    plain_hidden, plain_weight = (leaf.detach().clone().requires_grad_() for leaf in (hidden, weight))
    each = torch.nn.functional.cross_entropy(plain_hidden @ plain_weight.T, targets, reduction="none")
    (2 * (each * weights).sum()).backward()
    assert torch.allclose(loss, (each * weights).sum())
    assert torch.allclose(hidden.grad, plain_hidden.grad, atol=1e-6)
    assert torch.allclose(weight.grad, plain_weight.grad, atol=1e-6)
