"""The model on a real GPU, with our own operators and with ONNX Runtime's; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from shammah_generator import cuda_model
from shammah_generator.cuda_model import CudaModel
from shammah_generator.native_cuda import find_cuda_library

ROWS = [[5], list(range(20, 60)), [9, 8, 7]]


@pytest.fixture(params=["ours", "onnxruntime"])
def model(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> CudaModel:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("no GPU: this ONNX Runtime has no CUDA")
    if request.param == "onnxruntime":
        monkeypatch.setattr(cuda_model, "find_cuda_library", lambda: None)
    elif find_cuda_library() is None:
        pytest.skip("the CUDA operators are not built (python -m shammah_generator.native_cuda)")
    return CudaModel.load(folder, precision="fp16", threads=1, slots=8, context=96)


def test_captured_steps_are_those_of_pytorch(model: CudaModel, folder: Path, reference: Callable[..., object]) -> None:
    for slot, row in enumerate(ROWS):
        model.prefill(model.slots, row)
        model.move(model.slots, slot)
    ids, made = [7, 8, 9], [[], [], []]
    for _ in range(3):  # the second is captured, the third replayed
        scores = model.decode(ids, steps=4, more=True)
        ids = [tokens[-1] for tokens in scores.tokens]
        for row, tokens in zip(made, scores.tokens, strict=True):
            row += tokens
        assert np.isfinite(scores.logprobs).all()
    for row, (prompt, tokens) in enumerate(zip(ROWS, made, strict=True)):
        logits = np.asarray(reference(folder, [*prompt, row + 7, *tokens[:-1]]))[len(prompt) :]
        assert tokens == logits.argmax(-1).tolist()
        logprobs = torch.tensor(logits).log_softmax(-1).numpy().max(-1)
        assert np.allclose(scores.logprobs[row], logprobs[-4:], atol=0.05)


def test_prompts_together_are_each_alone(model: CudaModel, folder: Path, reference: Callable[..., object]) -> None:
    if not model.joint_tokens:
        pytest.skip("ONNX Runtime's attention takes one prompt at a time")
    prompts = [[5, 6], list(range(20, 60)), [9, 8, 7], [1, 2, 3, 4, 5, 6], [2, 4, 6]]
    assert model.prefill_rows(0, prompts) == 5
    tokens = model.decode([prompt[-1] for prompt in prompts], steps=4).tokens
    for prompt, row in zip(prompts, tokens, strict=True):
        logits = np.asarray(reference(folder, [*prompt, *row[:-1]]))[len(prompt) - 1 :]
        assert row == logits.argmax(-1).tolist()
