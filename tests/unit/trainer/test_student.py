"""The student's files: what is saved is what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shammah_chassis.errors import ArtifactError
from shammah_trainer.export_generator import check_parity, compute_expected, export_generator
from shammah_trainer.student import load_student, read_config, save_student
from support.tiny import make_tiny_generator

CPU = torch.device("cpu")
PROMPTS = [[1, 20, 21, 22], [1, 300, 4, 5, 6, 7, 8], [1, 9]]


def logits(student, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return student.model(torch.tensor([prompt])).logits


@pytest.mark.parametrize("tied", [True, False])
def test_saving_and_loading_gives_equal_logits(tmp_path: Path, tied: bool) -> None:
    student = load_student(make_tiny_generator(tmp_path / "base", tied=tied), device=CPU)
    export_generator(student, tmp_path / "base" / "tokenizer.json", tmp_path / "out")
    again = load_student(tmp_path / "out", device=CPU)
    for prompt in PROMPTS:
        assert torch.equal(logits(student, prompt), logits(again, prompt))
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as saved:
        assert ("lm_head.weight" in saved.keys()) is not tied  # noqa: SIM118 (not a mapping)


def test_a_missing_tensor_is_refused_and_named(tiny_generator: Path, tmp_path: Path) -> None:
    state = load_file(tiny_generator / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((tiny_generator / "config.json").read_text())
    with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_student(tmp_path, device=CPU)


def test_the_exported_graph_computes_what_torch_computes(tiny_generator: Path, tmp_path: Path) -> None:
    student = load_student(tiny_generator, device=CPU)
    export_generator(student, tiny_generator / "tokenizer.json", tmp_path)
    assert check_parity(tmp_path, compute_expected(student, PROMPTS), threads=1) < 1e-3


def test_a_graph_that_computes_something_else_is_refused(tiny_generator: Path, tmp_path: Path) -> None:
    student = load_student(tiny_generator, device=CPU)
    export_generator(student, tiny_generator / "tokenizer.json", tmp_path)
    with torch.no_grad():
        student.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    with pytest.raises(ArtifactError, match="differs from PyTorch"):
        check_parity(tmp_path, compute_expected(student, PROMPTS), threads=1)
    save_student(student, tmp_path)
    assert check_parity(tmp_path, compute_expected(student, PROMPTS), threads=1) < 1e-3


def test_parity_without_a_prompt_proves_nothing_and_is_refused(tiny_generator: Path) -> None:
    student = load_student(tiny_generator, device=CPU)
    with pytest.raises(ArtifactError):
        check_parity(tiny_generator, compute_expected(student, []), threads=1)


def test_the_config_is_read_from_a_plain_folder(tiny_generator: Path) -> None:
    assert read_config(tiny_generator)["model_type"] == "llama"
