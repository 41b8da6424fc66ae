"""Tiny generators that the tests of this folder share; they are only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from shammah_chassis.manifest import load_json
from shammah_generator.graph import write_graphs
from shammah_generator.model import GeneratorModel
from support.generating import spread_gains
from support.tiny import make_tiny_generator
from transformers import LlamaForCausalLM


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a maker of tiny generator folders with graphs."""

    def make(**shape: object) -> Path:
        folder = spread_gains(make_tiny_generator(tmp_path_factory.mktemp("generator"), **shape))
        write_graphs(folder, load_json(folder / "config.json"))
        return folder

    return make


@pytest.fixture(scope="session")
def folder(make_folder: Callable[..., Path]) -> Path:
    return make_folder()


@pytest.fixture
def load() -> Iterator[Callable[..., GeneratorModel]]:
    """Return a loader whose models are closed at the end of the test."""
    loaded: list[GeneratorModel] = []

    def load_model(folder: Path, **settings: object) -> GeneratorModel:
        defaults = {"precision": "fp32", "threads": 1, "slots": 4, "context": 96}
        loaded.append(GeneratorModel.load(folder, **(defaults | settings)))
        return loaded[-1]

    yield load_model
    for model in loaded:
        model.close()


@pytest.fixture(scope="session")
def reference() -> Callable[[Path, Sequence[int]], np.ndarray]:
    """Return PyTorch's logits `[len(ids), vocab]` for a folder and ids."""
    models: dict[Path, LlamaForCausalLM] = {}

    def compute(folder: Path, ids: Sequence[int]) -> np.ndarray:
        if folder not in models:
            models[folder] = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        torch.set_num_threads(1)  # more wait for each other where tests run side by side
        tokens = torch.tensor([list(ids)])
        with torch.no_grad():
            return models[folder](tokens, attention_mask=torch.ones_like(tokens)).logits[0].numpy()

    return compute
