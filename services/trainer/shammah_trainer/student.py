"""The generator as a torch model: read from a version folder, written back with Hugging Face names.

It knows files and parameters, no examples and no optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.manifest import MANIFEST_NAME, load_json, read_manifest
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

WEIGHTS_NAME = "model.safetensors"
_HEAD = "lm_head.weight"
Network = Any
"""A transformers `LlamaForCausalLM`; the library has no types that a strict checker could use."""


@dataclass(frozen=True, slots=True)
class Student:
    """A torch generator and the Hugging Face config it was made from."""

    model: Network
    config: dict[str, Any]


def read_config(folder: Path) -> dict[str, Any]:
    """Return the Hugging Face config of a version folder, or of a plain Hugging Face folder."""
    if (folder / MANIFEST_NAME).is_file():
        return read_manifest(folder).config
    return load_json(folder / "config.json")


def load_student(folder: Path, *, device: torch.device) -> Student:
    """Load a generator in float32.

    Raises:
        ArtifactError: the weights can't be read or do not fit the config.
    """
    config = read_config(folder)
    try:
        state = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / WEIGHTS_NAME} can't be read: {error}") from error
    made = LlamaConfig.from_dict(dict(config))
    _check_names(state, made)
    transformers_logging.disable_progress_bar()
    state = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    try:
        model = LlamaForCausalLM.from_pretrained(
            None, config=made, state_dict=state, dtype=torch.float32, attn_implementation="sdpa"
        )
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"{folder.name}: the weights do not fit the config: {error}") from error
    return Student(model.to(device), config)


def save_student(student: Student, folder: Path) -> None:
    """Write `model.safetensors` in float32 with Hugging Face names; a tied head is written once (as the embedding)."""
    tied = bool(student.config.get("tie_word_embeddings", False))
    state: Mapping[str, torch.Tensor] = student.model.state_dict()
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in state.items()
        if not (tied and name == _HEAD)
    }
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def freeze_lower(student: Student, *, upper_layers: int) -> list[Any]:
    """Let only the upper `upper_layers` blocks and the last norm learn (0: everything); return what learns.

    Embeddings and a tied head stay as they are. Frozen blocks keep no activations: nothing below them asks for a
    gradient, so autograd records nothing there.

    Raises:
        InvalidInputError: more layers than the model has, or less than 0.
    """
    layers = student.model.model.layers
    if not 0 <= upper_layers <= len(layers):
        raise InvalidInputError(f"upper_layers is {upper_layers}; allowed: 0 (all) to {len(layers)}")
    every = upper_layers == 0
    for parameter in student.model.parameters():
        parameter.requires_grad_(every)
    if not every:
        for part in (*layers[len(layers) - upper_layers :], student.model.model.norm):
            for parameter in part.parameters():
                parameter.requires_grad_(True)
    return [parameter for parameter in student.model.parameters() if parameter.requires_grad]


def _check_names(state: Mapping[str, Any], config: LlamaConfig) -> None:
    # from_pretrained would fill a missing weight with random numbers.
    with torch.device("meta"):
        wanted = set(LlamaForCausalLM(config).state_dict())
    if getattr(config, "tie_word_embeddings", False):
        wanted.discard(_HEAD)
    missing = sorted(wanted - state.keys())
    if missing:
        raise ArtifactError(f"the weights lack {len(missing)} tensors, the first is {missing[0]!r}")
