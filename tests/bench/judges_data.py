"""Rows and base encoder of the judges' studies: from `../shared/data`, or from one archive on a machine without it."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from shammah_chassis.text import normalise_query

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
ENCODER = Path.home() / ".cache/shammah/base/encoder"
FOLDS = 5
HALU = ("halueval_qa_lencontrol", "halueval_dialogue", "halueval_summarization")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """Folders of data and of the base encoder; `rows` bounds the rows of a file for tries (0: all)."""

    data: Path
    encoder: Path
    rows: int = 0

    def read(self, name: str) -> list[Row]:
        """Return the rows of `<data>/<name>.jsonl.gz`; for tries the first ones, pairs kept whole."""
        with gzip.open(self.data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as source:
            rows = [json.loads(line) for line in source]
        if not self.rows:
            return rows
        kept = sorted({group_of(row) for row in rows})[: self.rows // 2]
        return [row for row in rows if group_of(row) in set(kept)]


def group_of(row: Row) -> str:
    """Return what rows of one query share: they are left out together."""
    return hashlib.sha256(normalise_query(row["query"] + " " + str(row.get("context") or "")).encode()).hexdigest()[:16]


def fold_of_row(row: Row) -> int:
    """Return the fold of a row, by its group."""
    return int(group_of(row)[:8], 16) % FOLDS


def pack(site: Site, path: Path) -> None:
    """Write one archive of the studies' rows and of the encoder, its matrices as int8 with a scale a row (23 MB)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path, "w:xz") as archive:
        for kind in ("router", "validator", "workload"):
            for file in sorted((site.data / kind).glob("*.jsonl.gz")):
                if kind != "workload" or ".train." in file.name:
                    archive.add(file, f"data/{kind}/{file.name}")
        small = {}
        for name, values in load_file(site.encoder / "model.safetensors").items():
            if values.ndim != 2:
                small[name] = values
                continue
            scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / 127.0, 1e-12).astype(np.float32)
            small[name], small[f"{name}.scale"] = np.rint(values / scale).astype(np.int8), scale
        save_file(small, Path(folder) / "small.safetensors")
        archive.add(Path(folder) / "small.safetensors", "encoder/small.safetensors")
        for name in ("config.json", "tokenizer.json"):
            archive.add(site.encoder / name, f"encoder/{name}")


def unpack(path: Path, folder: Path) -> Site:
    """Unpack an archive of `pack` into `folder`; matrices become float32 again."""
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    small = load_file(folder / "encoder/small.safetensors")
    whole = {
        name: values.astype(np.float32) * small[f"{name}.scale"] if f"{name}.scale" in small else values
        for name, values in small.items()
        if not name.endswith(".scale")
    }
    save_file(whole, folder / "encoder/model.safetensors")
    return Site(folder / "data", folder / "encoder")
