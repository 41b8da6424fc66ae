"""Loads a version for the device that its precision is for. It knows both models, and nobody else needs to."""

from __future__ import annotations

from pathlib import Path

from shammah_generator.cuda_model import CudaModel
from shammah_generator.model import GeneratorModel
from shammah_generator.precision import PLANS, check_precision
from shammah_generator.stepping import Model


def load_model(
    folder: Path, *, precision: str, threads: int, slots: int, context: int, cache_dir: Path | None = None
) -> Model:
    """Load a version folder: fp16 on the GPU, all others on the CPU; arguments and errors as `GeneratorModel.load`."""
    kind = CudaModel if PLANS[check_precision(precision)].half else GeneratorModel
    return kind.load(folder, precision=precision, threads=threads, slots=slots, context=context, cache_dir=cache_dir)
