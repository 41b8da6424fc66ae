"""Version folders of router and validator: one weights file, and graphs that point into it.

`model.safetensors` holds all weights, and in its metadata the config and the labels, so a folder can be trained on
without its manifest. `graph.onnx` has no weights inside: its initializers are ONNX external data that point at the
bytes of `model.safetensors`. So a version is stored once, and a new version is new bytes plus new offsets.
It knows no network and no training.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from shammah_chassis.encoder import TOKENIZER_NAME, WEIGHTS_NAME
from shammah_chassis.errors import ArtifactError
from torch import Tensor

_LARGEST_INLINE = 1 << 16
_METADATA = "shammah"


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """What a folder holds: float32 weights by name, the engine's config and the label of each slot in use."""

    weights: dict[str, Tensor]
    config: dict[str, Any]
    labels: tuple[str, ...]


def load_version(folder: Path, *, kind: str) -> StoredVersion:
    """Read the weights of a version folder.

    Raises:
        ArtifactError: unreadable, made by something else, or for another role.
    """
    path = folder / WEIGHTS_NAME
    try:
        with safe_open(path, framework="pt") as source:
            metadata = source.metadata() or {}
            weights = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118 - not a mapping
        described = json.loads(metadata[_METADATA])
        config, labels = described["config"], tuple(described["labels"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{path} can't be read as an encoder version: {error!r}") from error
    if config.get("kind") != kind:
        raise ArtifactError(f"{path} holds a {config.get('kind')}, wanted a {kind}")
    return StoredVersion(weights, config, labels)


def save_version(
    out: Path, weights: Mapping[str, Tensor], *, config: Mapping[str, Any], labels: tuple[str, ...], tokenizer: Path
) -> None:
    """Write `model.safetensors` and a copy of `tokenizer.json` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    # One entry: safetensors writes several in random order, and equal versions must have equal bytes.
    metadata = {_METADATA: json.dumps({"config": dict(config), "labels": list(labels)}, sort_keys=True)}
    flat = {name: tensor.detach().to(torch.float32).contiguous().clone() for name, tensor in weights.items()}
    save_file(flat, out / WEIGHTS_NAME, metadata=metadata)
    shutil.copyfile(tokenizer, out / TOKENIZER_NAME)


def read_layout(path: Path) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Return shape, offset in the file and length in bytes of each tensor of a safetensors file.

    The format: 8 bytes little-endian length of a JSON header, the header, the tensors
    (https://github.com/huggingface/safetensors#format).
    """
    with path.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(length))
    start = 8 + length
    return {
        name: (
            tuple(entry["shape"]),
            start + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def point_at_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Make each named weight of a graph point into the folder's `model.safetensors`.

    Raises:
        ArtifactError: a weight of the graph isn't in the file, has another shape, or a large constant has no name that
            the file knows (the exporter folded a weight away, so the graph can't follow new weights).
    """
    layout = read_layout(folder / WEIGHTS_NAME)
    for initializer in model.graph.initializer:
        if initializer.name not in layout:
            if initializer.data_location == TensorProto.EXTERNAL or initializer.ByteSize() > _LARGEST_INLINE:
                raise ArtifactError(f"the graph needs weight {initializer.name}, which {WEIGHTS_NAME} lacks")
            continue
        shape, offset, length = layout[initializer.name]
        if tuple(initializer.dims) != shape or initializer.data_type != TensorProto.FLOAT:
            raise ArtifactError(f"weight {initializer.name} is {shape}, the graph wants {tuple(initializer.dims)}")
        for name in ("raw_data", "float_data", "external_data"):
            initializer.ClearField(name)
        initializer.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS_NAME), ("offset", offset), ("length", length)):
            initializer.external_data.add(key=key, value=str(value))
