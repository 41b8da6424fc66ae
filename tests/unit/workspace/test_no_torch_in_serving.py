"""A serving process runs without torch: by import, and by what its distribution asks for."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

import pytest

SERVING = ["shammah-chassis", "shammah-router", "shammah-generator", "shammah-validator", "shammah-gateway"]
HEAVY = {"torch", "transformers", "gguf", "accelerate", "peft"}

BLOCK = """
import importlib, pkgutil, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError(name + " is not in a serving environment")
sys.meta_path.insert(0, Block())
package = importlib.import_module({package!r})
for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not info.name.endswith("__main__"):
        importlib.import_module(info.name)
print("ok")
"""


@pytest.mark.parametrize(
    "package", ["shammah_chassis", "shammah_router", "shammah_generator", "shammah_validator", "shammah_gateway"]
)
def test_every_serving_module_imports_with_torch_blocked(package: str) -> None:
    code = BLOCK.format(heavy=HEAVY, package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ok"


def requirements_closure(distribution: str, extras: frozenset[str]) -> set[str]:
    """Names of all distributions that an install of this one brings."""
    seen: set[tuple[str, frozenset[str]]] = set()
    names: set[str] = set()
    todo = [(distribution, extras)]
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        names.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            needed, _, marker = line.partition(";")
            extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
            if extra and extra.group(1) not in wanted:
                continue
            match = re.match(r"\s*([\w.-]+)(?:\[([\w,\s-]+)\])?", needed)
            assert match is not None, line
            inner = frozenset(part.strip() for part in (match.group(2) or "").split(",") if part.strip())
            todo.append((match.group(1).lower().replace("_", "-"), inner))
    return names


@pytest.mark.parametrize("distribution", SERVING)
def test_no_serving_distribution_asks_for_torch(distribution: str) -> None:
    names = requirements_closure(distribution, frozenset({"cpu"}))
    assert "grpcio" in names
    assert not names & HEAVY
