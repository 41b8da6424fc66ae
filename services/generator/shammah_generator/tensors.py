"""Reads tensors out of a safetensors file as float32, without copying what needs no change.

The format (8 bytes length, JSON header, raw data; github.com/huggingface/safetensors) is read here because the
library's numpy side refuses bfloat16 and copies, while a memory map costs only the pages that are used. It knows no
model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shammah_chassis.errors import ArtifactError

from shammah_generator.arrays import Array, Floats

_KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies in the data, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """A read-only view of one file.

    Raises:
        ArtifactError: missing, or its header is not what the format asks for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content: Array = np.memmap(path, np.uint8, mode="r")
            size = int(content[:8].view("<u8")[0])
            header = json.loads(content[8 : 8 + size].tobytes())
            self._entries = {
                str(name): _Entry(str(raw["dtype"]), tuple(map(int, raw["shape"])), *map(int, raw["data_offsets"]))
                for name, raw in header.items()
                if name != "__metadata__"
            }
        except (OSError, ValueError, IndexError, AttributeError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path.name} is not a readable safetensors file: {error}") from error
        self._data = content[8 + size :]

    def read(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Return one tensor as float32: a view where the file holds float32, else a copy.

        Raises:
            ArtifactError: it is missing, has another shape, another kind of number, or lies outside the file.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ArtifactError(f"{self.path.name} has no tensor {name!r}")
        if entry.shape != shape:
            raise ArtifactError(f"tensor {name!r} has shape {list(entry.shape)}, the architecture needs {list(shape)}")
        kind = _KINDS.get(entry.dtype)
        if kind is None:
            raise ArtifactError(f"tensor {name!r} is {entry.dtype}; allowed: {', '.join(_KINDS)}")
        size = int(np.prod(shape)) * kind.itemsize
        if not 0 <= entry.start <= entry.end <= self._data.size or entry.end - entry.start != size:
            raise ArtifactError(f"tensor {name!r} does not lie inside {self.path.name}")
        values = self._data[entry.start : entry.end].view(kind)
        if entry.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(values, np.float32).reshape(shape)
