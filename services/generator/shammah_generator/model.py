"""A loaded generator version: an ONNX Runtime session and one key/value buffer that all its slots share.

It knows slots, token ids and logits. It knows no requests, sampling or threads of its own: the caller makes sure that
one call runs at a time. A slot is a contiguous piece of each layer's buffer `[slots, kv_heads, context, head_dim]`, so
a prompt is computed straight into its slot and rows of different length decode together without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.manifest import MANIFEST_NAME, digest_file, load_json, read_manifest
from tokenizers import Tokenizer

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array, Floats
from shammah_generator.chat import load_tokenizer
from shammah_generator.graph import PRECISIONS, Precision, build_graph
from shammah_generator.session import count_bytes, open_session, read_graph
from shammah_generator.weights import name_cache_file, read_weights

WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"


@dataclass(slots=True)
class _Step:
    """A binding to one run of slots, with the small arrays that change from run to run."""

    binding: Any
    ids: Array
    seqlens: Array
    total: Array
    logits: Floats
    keep: list[Any]
    """Values whose memory the binding points to."""


class GeneratorModel:
    """One version, ready to compute; made by `load`."""

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
    ) -> None:
        self.architecture = architecture
        self.tokenizer = tokenizer
        self.slots = slots
        self.context = context
        self._session: Any = session  # None once closed
        self._weight_bytes = weight_bytes
        self._every_position = every_position
        self._lengths = np.zeros(slots, np.int64)
        shape = (slots, architecture.kv_heads, context, architecture.head_dim)
        # Zeroed pages are mapped on first touch: a slot costs memory only as far as it was ever filled.
        self._caches: dict[str, Floats] = {
            f"{i}.{kind}": np.zeros(shape, np.float32) for i in range(architecture.layers) for kind in ("key", "value")
        }
        self._steps: dict[tuple[int, int], _Step] = {}

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
    ) -> GeneratorModel:
        """Load a version folder (`manifest.json` or `config.json`, weights, tokenizer, graph).

        Args:
            folder: the version; its digests were checked when it was fetched.
            precision: "fp32" or "int8".
            threads: threads of one computation.
            slots: sequences that can be held at once.
            context: tokens of one sequence, prompt and response together.
            cache_dir: where quantised weights are kept between loads; None keeps none.
            every_position: `prefill` returns logits of all positions (parity checks); the graph is then built here.

        Raises:
            ArtifactError: a file is missing, broken or of the wrong shape.
            InvalidInputError: an argument is out of range.
        """
        known = _check_precision(precision)
        config = _read_config(folder)
        architecture = Architecture.from_config(config)
        _check_sizes(architecture, threads=threads, slots=slots, context=context)
        cache = None
        if cache_dir is not None and known == "int8":
            cache = name_cache_file(cache_dir, _find_digest(folder))
        graph = (
            build_graph(architecture, precision=known, every_position=True)
            if every_position
            else read_graph(folder, known)
        )
        weights = read_weights(folder / WEIGHTS_NAME, architecture, precision=known, threads=threads, cache=cache)
        return cls(
            open_session(graph, weights, threads=threads),
            architecture=architecture,
            tokenizer=load_tokenizer(folder / TOKENIZER_NAME),
            slots=slots,
            context=context,
            weight_bytes=count_bytes(weights),
            every_position=every_position,
        )

    @property
    def kv_bytes(self) -> int:
        """Size of all key/value buffers in bytes (address space; pages come with use)."""
        return sum(cache.nbytes for cache in self._caches.values())

    @property
    def resident_bytes(self) -> int:
        """Bytes that this version may come to occupy: weights and key/value buffers."""
        return self._weight_bytes + self.kv_bytes

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Compute a prompt into a slot, replacing what was there.

        Returns:
            Logits float32 `[1, vocab]` of the last position (`[len(ids), vocab]` if loaded with `every_position`).

        Raises:
            InvalidInputError: no such slot, no ids, or more ids than the context.
        """
        self._check_run([slot])
        if not 0 < len(ids) <= self.context:
            raise InvalidInputError(f"{len(ids)} prompt tokens; allowed: 1 to {self.context}")
        step = self._bind([slot], np.array([ids], np.int64), every_position=self._every_position)
        step.seqlens[0] = len(ids) - 1
        step.total[...] = len(ids)
        self._session.run_with_iobinding(step.binding)
        self._lengths[slot] = len(ids)
        return step.logits

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Append one token to each of some neighbouring slots.

        Args:
            slots: ascending without a gap, e.g. 0, 1, 2 (see `move`): their memory is one piece.
            ids: the token of each slot.

        Returns:
            Logits float32 `[len(slots), vocab]`, valid until the next call.

        Raises:
            InvalidInputError: slots with a gap or out of range, or a slot that is empty or full.
        """
        self._check_run(slots)
        if len(ids) != len(slots):
            raise InvalidInputError(f"{len(ids)} ids for {len(slots)} slots; allowed: one each")
        first, count = slots[0], len(slots)
        lengths = self._lengths[first : first + count]
        if lengths.min() < 1 or lengths.max() >= self.context:
            raise InvalidInputError(
                f"slots hold {lengths.min()} to {lengths.max()} tokens; allowed: 1 to {self.context - 1}"
            )
        step = self._steps.get((first, count))
        if step is None:
            # Kept: binding the buffers of all layers costs far more than changing a few numbers in place.
            step = self._bind(slots, np.zeros((count, 1), np.int64))
            self._steps[first, count] = step
        step.ids[:, 0] = ids
        step.seqlens[:] = lengths  # the kernel wants the total length - 1: what was there before
        step.total[...] = lengths.max() + 1
        self._session.run_with_iobinding(step.binding)
        lengths += 1
        return step.logits

    def move(self, source: int, target: int) -> None:
        """Copy one slot into another, to close a gap; costs one copy of what the slot holds."""
        self._check_run([source])
        self._check_run([target])
        length = self._lengths[source]
        for cache in self._caches.values():
            cache[target, :, :length] = cache[source, :, :length]
        self._lengths[target] = length

    def close(self) -> None:
        """Let session and buffers go; the model can't be used afterwards."""
        self._steps.clear()
        self._caches.clear()
        self._session = None

    def _check_run(self, slots: Sequence[int]) -> None:
        if self._session is None:
            raise InvalidInputError("the model is closed")
        run = list(range(slots[0], slots[0] + len(slots))) if slots else []
        if not run or list(slots) != run or run[0] < 0 or run[-1] >= self.slots:
            raise InvalidInputError(
                f"slots {list(slots)}; allowed: neighbours in ascending order out of 0 to {self.slots - 1}"
            )

    def _bind(self, slots: Sequence[int], ids: Array, *, every_position: bool = False) -> _Step:
        start, count = slots[0], len(slots)
        rows = ids.size if every_position else count
        binding = self._session.io_binding()
        step = _Step(
            binding=binding,
            ids=ids,
            seqlens=np.zeros(count, np.int32),
            total=np.zeros((), np.int32),
            logits=np.zeros((rows, self.architecture.vocab), np.float32),
            keep=[],
        )
        inputs: dict[str, Array] = {
            "input_ids": step.ids,
            "seqlens_k": step.seqlens,
            "total_sequence_length": step.total,
        }
        outputs: dict[str, Array] = {"logits": step.logits}
        for name, cache in self._caches.items():
            inputs[f"past.{name}"] = outputs[f"present.{name}"] = cache[start : start + count]
        for name, value in inputs.items():
            step.keep.append(ort.OrtValue.ortvalue_from_numpy(value))
            binding.bind_ortvalue_input(name, step.keep[-1])
        for name, value in outputs.items():
            step.keep.append(ort.OrtValue.ortvalue_from_numpy(value))
            binding.bind_ortvalue_output(name, step.keep[-1])
        return step


def _check_precision(precision: str) -> Precision:
    for known in PRECISIONS:
        if precision == known:
            return known
    raise InvalidInputError(f"precision {precision!r}; allowed: {', '.join(PRECISIONS)}")


def _check_sizes(architecture: Architecture, *, threads: int, slots: int, context: int) -> None:
    if threads < 1 or slots < 1:
        raise InvalidInputError(f"{threads} threads and {slots} slots; allowed: 1 or more of each")
    if not 2 <= context <= architecture.max_positions:
        raise InvalidInputError(f"context of {context} tokens; allowed: 2 to {architecture.max_positions}")


def _read_config(folder: Path) -> Mapping[str, Any]:
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
