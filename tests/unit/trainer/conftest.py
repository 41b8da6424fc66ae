"""Tiny base models, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_generator.graph import write_graphs
from shammah_trainer.student import read_config
from support.tiny import make_tiny_encoder, make_tiny_generator


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator with its graphs; do not write to it."""
    folder = make_tiny_generator(tmp_path_factory.mktemp("tiny") / "generator")
    write_graphs(folder, read_config(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder in Hugging Face format; do not write to it."""
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny") / "encoder")
