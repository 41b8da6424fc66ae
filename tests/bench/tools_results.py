"""Adding figures to `results/tools.json`: several programs measure for it, each replaces its own ids only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from learning_results import merge_figures
from system import Figure


def write_figures(figures: Sequence[Figure], *, command: str) -> Path:
    """Write figures over those of the same id, keep the others."""
    return merge_figures(figures, command=command, name="tools")
