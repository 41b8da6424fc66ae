"""Tiny router and validator versions, made once a test run from a random BERT; they are only read."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from shammah_chassis.manifest import Manifest, Role, describe_files
from shammah_trainer.encoders.base import make_base_router, make_base_validator
from shammah_trainer.encoders.results import GradedRow, RoleResult, RouterRow
from support.tiny import make_tiny_encoder

_FOLDER = tempfile.TemporaryDirectory(prefix="shammah-encoders-", ignore_cleanup_errors=True)
BANK = [
    "my card was lost",
    "transfer 120 euros",
    "open my savings account",
    "my savings card",
    "transfer to my account",
]
TABLE = ["book a table for two", "the evening at seven", "people would like a table", "a table for seven people"]


@functools.cache
def tiny_encoder() -> Path:
    return make_tiny_encoder(Path(_FOLDER.name) / "encoder", layers=3)


@functools.cache
def base_router() -> tuple[Path, RoleResult]:
    folder = Path(_FOLDER.name) / "router"
    return folder, make_base_router(tiny_encoder(), folder)


@functools.cache
def base_validator() -> tuple[Path, RoleResult]:
    folder = Path(_FOLDER.name) / "validator"
    return folder, make_base_validator(tiny_encoder(), folder)


def describe(role: Role, folder: Path, result: RoleResult) -> Manifest:
    """Return the manifest that a round would write for a version."""
    files = describe_files(folder)
    return Manifest(role, "v1", "", 1, 0.0, result.config, files, labels=result.labels)


def make_router_rows(count: int = 60, *, graded: bool = False) -> list[RouterRow]:
    """Return rows of two categories with words of their own; `bank` is answered well, `table` isn't."""
    rows = []
    for number in range(count):
        bank = number % 2 == 0
        stem = (BANK if bank else TABLE)[(number // 2) % 4]
        rows.append(RouterRow(f"{stem} {number}", "bank" if bank else "table", bank if graded else None))
    return rows


def make_graded_rows(count: int = 120, *, seed: int = 0) -> list[GradedRow]:
    """Return rollouts whose log-probabilities tell good from bad, with noise; the texts tell nothing."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        good = bool(generator.random() < 0.5)
        mean = -abs(float(generator.normal(0.3 if good else 1.2, 0.4)))
        entropy, margin = abs(mean) * 0.8, max(0.0, 1.0 + mean)
        statistics = [4 * mean, mean, 2 * mean, mean, 4.0, entropy, 2 * entropy, margin / 2, margin, 30.0]
        query = f"{BANK[number % 4]} {seed} {number}"
        rows.append(GradedRow(query, "yes" if number % 3 else "no", "bank", statistics, good))
    return rows


def measure_auroc(good: list[bool], scores: list[float]) -> float:
    """Return P(a good one scores above a bad one), ties half."""
    labels, values = np.array(good), np.array(scores)
    above = values[labels][:, None] - values[~labels][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())
