"""A generator version on the CPU: an ONNX Runtime session and one key/value buffer that all its slots share.

It knows slots, token ids and scores. It knows no requests, sampling or threads of its own: the caller makes sure that
one call runs at a time. The buffer is `[2 * layers, slots, kv_heads, context, head_dim]`, keys and values of a layer
after each other; a slot is a contiguous piece of each layer, so a prompt is computed straight into its slot and rows of
different length decode together without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.manifest import MANIFEST_NAME, digest_file, load_json, read_manifest
from tokenizers import Tokenizer

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array, Floats
from shammah_generator.chat import load_tokenizer
from shammah_generator.graph import build_graph
from shammah_generator.graph_native import build_native_graph, can_serve
from shammah_generator.native import find_library
from shammah_generator.pages import make_zeros
from shammah_generator.precision import PLANS, Precision, check_precision
from shammah_generator.session import count_bytes, open_session, read_graph
from shammah_generator.stepping import Scores
from shammah_generator.weight_cache import name_cache_file
from shammah_generator.weights import PACKED, read_weights_politely

WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"
Kernels = Literal["auto", "onnxruntime"]
STAGING = 4
"""Prompts that may be under way at once."""


@dataclass(slots=True)
class _Step:
    """A binding to one run of slots, with the small arrays that change from run to run."""

    binding: Any
    ids: Array
    seqlens: Array
    total: Array
    outputs: dict[str, Array]
    keep: list[Any]
    """Values whose memory the binding points to."""


class GeneratorModel:
    """One version, ready to compute; made by `load`. It is a `Model` (see `stepping`)."""

    most_steps = 1
    joint_tokens = 0
    keeps_prefixes = True
    prompts_a_turn = 1

    def __init__(
        self,
        session: ort.InferenceSession,
        *,
        architecture: Architecture,
        tokenizer: Tokenizer,
        slots: int,
        context: int,
        weight_bytes: int,
        every_position: bool = False,
        packed: Array | None = None,
    ) -> None:
        self.architecture = architecture
        self.tokenizer = tokenizer
        self.slots = slots
        self.staging = STAGING
        self.context = context
        self._session: Any = session  # None once closed
        self._weight_bytes = weight_bytes
        self._every_position = every_position
        rows = slots + self.staging
        self._lengths = np.zeros(rows, np.int64)
        shape = (2 * architecture.layers, rows, architecture.kv_heads, context, architecture.head_dim)
        # Zeroed pages are mapped on first touch: a slot costs memory only about as far as it was ever filled. Large
        # pages, for our own operators, hold several slots of a layer.
        self._cache: Array = np.zeros(shape, np.float32) if packed is None else make_zeros(shape, np.float16)
        self._packed = packed
        self._steps: dict[int, _Step] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        precision: str,
        threads: int,
        slots: int,
        context: int,
        cache_dir: Path | None = None,
        every_position: bool = False,
        kernels: Kernels = "auto",
    ) -> GeneratorModel:
        """Load a version folder (`manifest.json` or `config.json`, weights, tokenizer, graph).

        Args:
            folder: the version; its digests were checked when it was fetched.
            precision: "fp32", "int8" or "int8_fast".
            threads: threads of one computation.
            slots: sequences that can be held at once.
            context: tokens of one sequence, prompt and response together.
            cache_dir: where quantised weights are kept between loads; None keeps none.
            every_position: `prefill` gives logits of all positions (parity checks); the graph is then built here.
            kernels: whose operators compute int8: our own where they can ("auto"), or ONNX Runtime's.

        Raises:
            ArtifactError: a file is missing, broken or of the wrong shape.
            InvalidInputError: an argument is out of range.
        """
        known = check_precision(precision)
        if PLANS[known].half:
            raise InvalidInputError(f"precision {known} needs a GPU; allowed on a CPU: fp32, int8, int8_fast")
        config = read_config(folder)
        architecture = Architecture.from_config(config)
        check_sizes(architecture, threads=threads, slots=slots, context=context)
        library = find_library() if kernels == "auto" and can_serve(architecture, known) else None
        cache = None
        if cache_dir is not None and PLANS[known].quantised:
            cache = name_cache_file(cache_dir, _find_digest(folder), known, packed=library is not None)
        graph = _choose_graph(folder, architecture, known, threads, every_position, own=library is not None)
        weights = read_weights_politely(
            folder / WEIGHTS_NAME, architecture, precision=known, threads=threads, cache=cache, library=library
        )
        # Our operators have threads of their own.
        threads, path = (threads, None) if library is None else (1, library.path)
        return cls(
            open_session(graph, weights, threads=threads, library=path),
            architecture=architecture,
            tokenizer=load_tokenizer(folder / TOKENIZER_NAME),
            slots=slots,
            context=context,
            weight_bytes=count_bytes(weights),
            every_position=every_position,
            packed=weights.get(PACKED),
        )

    @property
    def kv_bytes(self) -> int:
        """Size of all key/value buffers in bytes (address space; pages come with use)."""
        return self._cache.nbytes

    @property
    def resident_bytes(self) -> int:
        """Bytes that this version may come to occupy: weights and key/value buffers."""
        return self._weight_bytes + self.kv_bytes

    def prefill(self, slot: int, ids: Sequence[int], *, past: int = 0) -> Scores:
        """As `Model.prefill`; with `every_position` the scores have one row a position."""
        self._check_slot(slot)
        total = past + len(ids)
        if not (ids and total <= self.context and 0 <= past <= self._lengths[slot]):
            raise InvalidInputError(
                f"{len(ids)} prompt tokens behind {past}; allowed: 1 to {self.context} in all, and at most the "
                f"{self._lengths[slot]} that the slot holds before them"
            )
        step = self._bind(slot, np.array([ids], np.int64), every_position=self._every_position)
        step.seqlens[0] = total - 1
        step.total[...] = total
        self._session.run_with_iobinding(step.binding)
        self._lengths[slot] = total
        if not np.isfinite(step.outputs["log_total"]).all():
            raise ShammahError("the model gave logits that are not numbers")
        return _read_scores(step.outputs)

    def prefill_rows(self, first: int, prompts: Sequence[Sequence[int]]) -> int:
        """Raise: on a CPU a prompt alone keeps all threads busy, and padding would cost as much as tokens."""
        raise InvalidInputError("a model on a CPU computes one prompt at a time")

    def decode(self, ids: Sequence[int], *, steps: int = 1, more: bool = False) -> Scores:
        """As `Model.decode`; one step a call, and `more` changes nothing."""
        count = len(ids)
        if not 1 <= count <= self.slots or steps != 1:
            raise InvalidInputError(f"{count} rows and {steps} steps; allowed: 1 to {self.slots} rows, one step")
        self._check_slot(0)
        lengths = self._lengths[:count]
        if lengths.min() < 1 or lengths.max() >= self.context:
            raise InvalidInputError(
                f"slots hold {lengths.min()} to {lengths.max()} tokens; allowed: 1 to {self.context - 1}"
            )
        step = self._steps.get(count)
        if step is None:
            # Kept: binding the buffers of all layers costs far more than changing a few numbers in place.
            step = self._steps[count] = self._bind(0, np.zeros((count, 1), np.int64))
        step.ids[:, 0] = ids
        step.seqlens[:] = lengths  # the kernel wants the total length - 1: what was there before
        step.total[...] = lengths.max() + 1
        self._session.run_with_iobinding(step.binding)
        lengths += 1
        return _read_scores(step.outputs)

    def keep(self, rows: int) -> None:
        """As `Model.keep`; nothing to do, a slot that is not in use costs nothing."""

    def move(self, source: int, target: int) -> None:
        """As `Model.move`; costs one copy of what the slot holds."""
        self._check_slot(source)
        self._check_slot(target)
        length = int(self._lengths[source])
        self._cache[:, target, :, :length] = self._cache[:, source, :, :length]
        self._lengths[target] = length

    def read_prefix(self, slot: int, start: int, stop: int) -> Array:
        """As `Model.read_prefix`: floats of the cache `[2 * layers, kv_heads, stop - start, head_dim]`."""
        self._check_slot(slot)
        return self._cache[:, slot, :, start:stop].copy()

    def write_prefix(self, slot: int, start: int, values: Array) -> None:
        """As `Model.write_prefix`."""
        self._check_slot(slot)
        stop = start + values.shape[2]
        self._cache[:, slot, :, start:stop] = values
        self._lengths[slot] = stop

    def close(self) -> None:
        """As `Model.close`."""
        self._steps.clear()
        self._packed = None
        self._cache = np.zeros(0, self._cache.dtype)
        self._session = None

    def _check_slot(self, slot: int) -> None:
        if self._session is None:
            raise InvalidInputError("the model is closed")
        if not 0 <= slot < len(self._lengths):
            raise InvalidInputError(f"slot {slot}; allowed: 0 to {len(self._lengths) - 1}")

    def _bind(self, start: int, ids: Array, *, every_position: bool = False) -> _Step:
        count = len(ids)
        rows = ids.size if every_position else count
        step = _Step(
            binding=self._session.io_binding(),
            ids=ids,
            seqlens=np.zeros(count, np.int32),
            total=np.zeros((), np.int32),
            outputs={
                "logits": np.zeros((rows, self.architecture.vocab), np.float32),
                "top_ids": np.zeros((rows, 2), np.int64),
                "top_values": np.zeros((rows, 2), np.float32),
                "log_total": np.zeros(rows, np.float32),
                "entropy": np.zeros(rows, np.float32),
            },
            keep=[],
        )
        inputs: dict[str, Array] = {"input_ids": step.ids, "seqlens_k": step.seqlens}
        outputs = dict(step.outputs)
        if self._packed is not None:
            inputs |= {"first_slot": np.array(start, np.int32), "weights": self._packed, "cache": self._cache}
        else:
            inputs["total_sequence_length"] = step.total
            for layer in range(self.architecture.layers):
                for offset, kind in enumerate(("key", "value")):
                    part = self._cache[2 * layer + offset, start : start + count]
                    inputs[f"past.{layer}.{kind}"] = outputs[f"present.{layer}.{kind}"] = part
        for name, value in inputs.items():
            step.keep.append(ort.OrtValue.ortvalue_from_numpy(value))
            step.binding.bind_ortvalue_input(name, step.keep[-1])
        for name, value in outputs.items():
            step.keep.append(ort.OrtValue.ortvalue_from_numpy(value))
            step.binding.bind_ortvalue_output(name, step.keep[-1])
        return step


def _choose_graph(
    folder: Path, architecture: Architecture, precision: Precision, threads: int, every_position: bool, *, own: bool
) -> onnx.ModelProto:
    if own:
        return build_native_graph(architecture, precision=precision, threads=threads, every_position=every_position)
    if every_position:
        return build_graph(architecture, precision=precision, every_position=True)
    return read_graph(folder, architecture, precision)


def _read_scores(outputs: Mapping[str, Array]) -> Scores:
    values, total, logits = outputs["top_values"], outputs["log_total"], outputs["logits"]
    return Scores(
        tokens=outputs["top_ids"][:, :1].tolist(),
        logprobs=(values[:, :1] - total[:, None]).tolist(),
        entropies=np.maximum(outputs["entropy"], 0)[:, None].tolist(),
        margins=(values[:, :1] - values[:, 1:]).tolist(),
        logits=partial(_pick, logits),
    )


def _pick(logits: Floats, row: int) -> Floats:
    picked: Floats = logits[row]
    return picked


def check_sizes(architecture: Architecture, *, threads: int, slots: int, context: int) -> None:
    """Raise InvalidInputError unless all sizes are possible."""
    if threads < 1 or slots < 1:
        raise InvalidInputError(f"{threads} threads and {slots} slots; allowed: 1 or more of each")
    if not 2 <= context <= architecture.max_positions:
        raise InvalidInputError(f"context of {context} tokens; allowed: 2 to {architecture.max_positions}")


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return the Hugging Face config of a version folder, or of a plain Hugging Face folder."""
    if (folder / MANIFEST_NAME).is_file():
        return read_manifest(folder).config
    return load_json(folder / "config.json")


def _find_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights: the manifest's, which was checked at fetch, else computed."""
    if (folder / MANIFEST_NAME).is_file():
        entry = read_manifest(folder).files.get(WEIGHTS_NAME)
        if entry is not None:
            return entry.sha256
    return digest_file(folder / WEIGHTS_NAME).sha256
