"""The state of a fine-tuning on disk, so that a run that crashed can be taken up where it stood.

One safetensors file (no pickle), written aside and renamed. It knows tensors and a key; a state of another key is
nobody's and is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from shammah_chassis.errors import StorageFullError
from torch import Tensor

from shammah_trainer.batches import RowTable
from shammah_trainer.hyper import SftHyper

_NAME = "sft-state.safetensors"
_NOT_PART = ("max_seconds", "save_seconds", "compile_mode", "cuda_graph")  # how, not what


@dataclass(frozen=True, slots=True)
class SavedState:
    """Tensors by name and numbers by name, as they were saved."""

    tensors: dict[str, Tensor]
    numbers: dict[str, float]


def make_key(table: RowTable, dev: RowTable, hyper: SftHyper, *, parent: str, device: str) -> str:
    """Return what names a run: the same rows, hyper-parameters, weights at the start and kind of device."""
    digest = hashlib.sha256(table.replayed.to_bytes(8, "little"))
    for rows in (table, dev):
        for part in (rows.ids, rows.starts, rows.learned, rows.weights, rows.turns):
            digest.update(len(part).to_bytes(8, "little") + part.tobytes())
    told = {name: value for name, value in asdict(hyper).items() if name not in _NOT_PART}
    digest.update(json.dumps([told, parent, device], sort_keys=True).encode())
    return digest.hexdigest()


def save_state(folder: Path, key: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
    """Write the state, replacing the one before.

    Raises:
        StorageFullError: the disk is full; the state before is kept.
    """
    aside = folder / f".{_NAME}"
    metadata = {"key": key, "numbers": json.dumps(dict(numbers))}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside, metadata)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(folder / _NAME)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise StorageFullError(f"the state of the training can't be saved in {folder}: {error}") from error


def load_state(folder: Path, key: str) -> SavedState | None:
    """Return the state of this key; None when there is none that can be read."""
    path = folder / _NAME
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("key") != key:
            return None
        return SavedState(load_file(path), json.loads(metadata["numbers"]))
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def clear_state(folder: Path) -> None:
    """Remove what is saved."""
    (folder / _NAME).unlink(missing_ok=True)
