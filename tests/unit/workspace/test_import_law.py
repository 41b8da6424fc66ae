"""The law of imports (DESIGN.md "The parts"), read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = {
    "shammah_chassis": ROOT / "services/chassis/shammah_chassis",
    "shammah_router": ROOT / "services/router/shammah_router",
    "shammah_generator": ROOT / "services/generator/shammah_generator",
    "shammah_validator": ROOT / "services/validator/shammah_validator",
    "shammah_trainer": ROOT / "services/trainer/shammah_trainer",
    "shammah_gateway": ROOT / "gateway/shammah_gateway",
    "shammah_client": ROOT / "gateway/client/shammah_client",
    "shammah_local": ROOT / "deploy/local/shammah_local",
}
MAY_IMPORT = {
    "shammah_chassis": set(),
    "shammah_router": {"shammah_chassis"},
    "shammah_generator": {"shammah_chassis"},
    "shammah_validator": {"shammah_chassis"},
    "shammah_trainer": {"shammah_chassis", "shammah_generator"},
    "shammah_gateway": {"shammah_chassis"},
    "shammah_client": set(),
    "shammah_local": {"shammah_chassis"},
}
TORCH = {"torch", "transformers", "peft", "gguf", "accelerate"}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def files_of(package: str) -> list[Path]:
    files = sorted(PACKAGES[package].rglob("*.py"))
    assert files, f"{package} has no source"
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_law_allows(package: str) -> None:
    forbidden = set(PACKAGES) - MAY_IMPORT[package] - {package}
    for path in files_of(package):
        found = {name.split(".")[0] for name in imports_of(path)} & forbidden
        assert not found, f"{path} imports {found}"


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "shammah_trainer"])
def test_torch_is_only_in_the_trainer(package: str) -> None:
    for path in files_of(package):
        found = {name.split(".")[0] for name in imports_of(path)} & TORCH
        assert not found, f"{path} imports {found}"


@pytest.mark.parametrize("package", PACKAGES)
def test_an_engine_knows_neither_grpc_nor_protos(package: str) -> None:
    for path in PACKAGES[package].glob("engine.py"):
        names = list(imports_of(path))
        assert not [n for n in names if n.split(".")[0] == "grpc" or n.startswith("shammah.v1")], path
