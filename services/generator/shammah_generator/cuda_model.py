"""A generator version on one NVIDIA GPU: fp16, and several steps a call without the host.

A step is one replay of a CUDA graph; there is one graph for each size of batch (`_SIZES`), captured when it is first
needed. The graph is that of our own operators (`cuda_fused`) where their library was built, else that of ONNX
Runtime's (`cuda_graph`). Rows need not lie next to each other here: a logical slot is mapped to a physical one, and
moving a row is changing that map. A batch covers the physical slots up to the last one in use; what lies between is
computed in vain.
It knows slots, token ids and scores, like `model`, and one call runs at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from shammah_chassis.errors import ArtifactError, InvalidInputError, ShammahError
from tokenizers import Tokenizer

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array, Floats
from shammah_generator.chat import load_tokenizer
from shammah_generator.cuda_fused import build_fused_graph, can_fuse, lay_out_rows
from shammah_generator.cuda_graph import RING_WIDTH, build_loop_graph
from shammah_generator.model import STAGING, TOKENIZER_NAME, WEIGHTS_NAME, check_sizes, read_config
from shammah_generator.native_cuda import find_cuda_library
from shammah_generator.precision import PLANS, check_precision
from shammah_generator.session import count_bytes, open_session
from shammah_generator.stepping import Scores
from shammah_generator.weights import read_weights_politely

STEPS = 16
"""Steps of one call at most: the host's work for 256 rows takes a tenth of the time of so many."""
_RING = 2 * STEPS  # the call that is read, and the one that is computed meanwhile
_SLACK = 3 * STEPS  # positions behind the context: a row that ended is computed on until the host has seen it
_JOINT_TOKENS = 2048  # of a call: enough to keep a GPU at work that one prompt leaves waiting for launches
_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_EAGER = "-1"  # the id with which ONNX Runtime neither captures nor replays


@dataclass(frozen=True, slots=True)
class _Step:
    """A binding to the first physical slots, or to one of them, with the device memory that changes."""

    binding: Any
    ids: Any
    seqlens: Any
    ring: Any
    logits: Any
    keep: list[Any]


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Steps that the device computes: `cursor` is the length of its first row before them, `expected` their inputs."""

    step: _Step
    size: int
    cursor: int
    steps: int
    expected: dict[int, int]


class CudaModel:
    """One version, ready to compute on a GPU; made by `load`. It is a `Model` (see `stepping`)."""

    most_steps = STEPS
    keeps_prefixes = False
    prompts_a_turn = STAGING

    def __init__(
        self,
        session: ort.InferenceSession,
        *,
        architecture: Architecture,
        tokenizer: Tokenizer,
        slots: int,
        context: int,
        weight_bytes: int,
        device: str = "cuda",
    ) -> None:
        self.architecture = architecture
        self.tokenizer = tokenizer
        self.slots = slots
        self.staging = STAGING
        self.context = context
        self._session: Any = session  # None once closed
        self._weight_bytes = weight_bytes
        self._device = device
        self._rows = slots + self.staging
        self._room = context + _SLACK
        self._physical = list(range(self._rows))
        self._lengths = np.zeros(self._rows, np.int64)  # by logical slot
        self._active = 0
        types = {value.name: value.type for value in session.get_inputs()}
        self._element: type[np.floating] = np.float16 if types["past.0.key"] == "tensor(float16)" else np.float32
        self._takes_total = "total_sequence_length" in types
        # ONNX Runtime's attention takes several rows or several tokens behind others, not both.
        self.joint_tokens = 0 if self._takes_total else _JOINT_TOKENS
        shape = [self._rows, architecture.kv_heads, self._room, architecture.head_dim]
        self._slot_bytes = math.prod(shape[1:]) * np.dtype(self._element).itemsize
        self._caches = {
            f"{i}.{kind}": self._allocate(shape, self._element)
            for i in range(architecture.layers)
            for kind in ("key", "value")
        }
        self._steps: dict[int, _Step] = {}
        self._ahead: _Ahead | None = None
        self._options: dict[tuple[str, bool], Any] = {}

    @classmethod
    def load(
        cls, folder: Path, *, precision: str, threads: int, slots: int, context: int, cache_dir: Path | None = None
    ) -> CudaModel:
        """Load a version folder, as `GeneratorModel.load`.

        Raises:
            ArtifactError: a file is missing, broken or of the wrong shape, or this ONNX Runtime has no CUDA.
            InvalidInputError: an argument is out of range.
        """
        known = check_precision(precision)
        if not PLANS[known].half:
            raise InvalidInputError(f"precision {known} is for CPUs; allowed on a GPU: fp16")
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise ArtifactError("precision fp16 needs a GPU: this ONNX Runtime has no CUDA (install the extra 'gpu')")
        architecture = Architecture.from_config(read_config(folder))
        check_sizes(architecture, threads=threads, slots=slots, context=context)
        if context + _SLACK > architecture.max_positions:
            raise InvalidInputError(
                f"context of {context} tokens; allowed on a GPU: 2 to {architecture.max_positions - _SLACK}"
            )
        library = find_cuda_library() if can_fuse(architecture) else None
        weights = read_weights_politely(
            folder / WEIGHTS_NAME, architecture, precision=known, threads=threads, by_rows=library is not None
        )
        if library is None:
            graph = build_loop_graph(architecture, precision=known, steps=_RING)
        else:
            graph = build_fused_graph(architecture, steps=_RING)
            weights = lay_out_rows(weights, architecture)
        providers = [("CUDAExecutionProvider", {"enable_cuda_graph": "1"})]
        return cls(
            open_session(graph, weights, threads=threads, providers=providers, library=library),
            architecture=architecture,
            tokenizer=load_tokenizer(folder / TOKENIZER_NAME),
            slots=slots,
            context=context,
            weight_bytes=count_bytes(weights),
        )

    @property
    def kv_bytes(self) -> int:
        """Size of all key/value buffers in bytes."""
        return self._slot_bytes * self._rows * 2 * self.architecture.layers

    @property
    def resident_bytes(self) -> int:
        """Bytes that this version occupies on the device: weights and key/value buffers."""
        return self._weight_bytes + self.kv_bytes

    def prefill(self, slot: int, ids: Sequence[int], *, past: int = 0) -> Scores:
        """As `Model.prefill`."""
        self._check_open()
        total = past + len(ids)
        if not 0 <= slot < self._rows:
            raise InvalidInputError(f"slot {slot}; allowed: 0 to {self._rows - 1}")
        if not (ids and total <= self.context and 0 <= past <= self._lengths[slot]):
            raise InvalidInputError(
                f"{len(ids)} prompt tokens behind {past}; allowed: 1 to {self.context} in all, and at most the "
                f"{self._lengths[slot]} that the slot holds before them"
            )
        if past == 0:
            self._take_lowest(slot)
            self._forget_ahead([self._physical[slot]])
        step = self._bind(self._physical[slot], 1, len(ids))
        step.ids.update_inplace(np.array([ids], np.int64))
        step.seqlens.update_inplace(np.array([total - 1], np.int32))
        self._run(step, _EAGER, wait=True)
        self._lengths[slot] = total
        scores = _read_ring(step, total - 1, 1, [0])
        if not math.isfinite(scores.logprobs[0][0]):
            raise ShammahError("the model gave logits that are not numbers")
        return scores

    def prefill_rows(self, first: int, prompts: Sequence[Sequence[int]]) -> int:
        """As `Model.prefill_rows`; together means in physical slots that lie next to each other."""
        self._check_open()
        longest = max(map(len, prompts), default=0) - 1
        if not (
            0 <= first <= self.slots - len(prompts)
            and min(map(len, prompts), default=0) > 1
            and longest <= self.context
            and longest * len(prompts) <= self.joint_tokens
        ):
            raise InvalidInputError(
                f"{len(prompts)} prompts of up to {longest + 1} tokens from slot {first} on; allowed: {self.slots} "
                f"slots, 2 to {self.context + 1} tokens, and {self.joint_tokens} in all with padding"
            )
        start, count = self._take_neighbours(first, len(prompts))
        self._forget_ahead(range(start, start + count))
        ids = np.zeros((count, longest), np.int64)
        for row, prompt in enumerate(prompts[:count]):
            ids[row, : len(prompt) - 1] = prompt[:-1]
        step = self._bind(start, count, longest)
        step.ids.update_inplace(ids)
        step.seqlens.update_inplace(np.full(count, longest - 1, np.int32))
        self._run(step, _EAGER, wait=True)
        self._lengths[first : first + count] = [len(prompt) - 1 for prompt in prompts[:count]]
        self._active = max(self._active, first + count)
        return count

    def decode(self, ids: Sequence[int], *, steps: int = 1, more: bool = False) -> Scores:
        """As `Model.decode`."""
        self._check_open()
        count = len(ids)
        if not (1 <= count <= self.slots and 1 <= steps <= STEPS):
            raise InvalidInputError(
                f"{count} rows and {steps} steps; allowed: 1 to {self.slots} rows, 1 to {STEPS} steps"
            )
        lengths = self._lengths[:count]
        if lengths.min() < 1 or lengths.max() >= self.context:
            raise InvalidInputError(
                f"slots hold {lengths.min()} to {lengths.max()} tokens; allowed: 1 to {self.context - 1}"
            )
        places = self._physical[:count]
        block = self._take_ahead(places, ids, steps) or self._begin(places, ids, steps)
        block.step.binding.synchronize_outputs()
        lengths += steps
        self._active = count
        if more and lengths.max() < self.context:
            self._ahead = self._launch(block.step, block.size, block.cursor + steps, steps)
        scores = _read_ring(block.step, block.cursor, steps, places)
        if self._ahead is not None:
            self._ahead.expected.update(zip(places, (row[-1] for row in scores.tokens), strict=True))
        return scores

    def _take_ahead(self, places: Sequence[int], ids: Sequence[int], steps: int) -> _Ahead | None:
        """Return what was computed ahead, if it is what is wanted now; rows that ended meanwhile don't matter."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.steps != steps:
            return None
        wanted = all(ahead.expected.get(place) == token for place, token in zip(places, ids, strict=True))
        return ahead if wanted else None

    def _forget_ahead(self, places: Iterable[int]) -> None:
        """Let nobody have what was computed ahead in these places: a new row may want the token of one that is gone."""
        for place in places:
            if self._ahead is not None:
                self._ahead.expected.pop(place, None)

    def _begin(self, places: Sequence[int], ids: Sequence[int], steps: int) -> _Ahead:
        """Tell the device where all rows stand, and launch steps from there."""
        size = next((size for size in _SIZES if size > max(places)), self._rows)
        size = min(size, self._rows)
        step = self._steps.get(size)
        if step is None:
            step = self._steps[size] = self._bind(0, size, 1)
        step.binding.synchronize_outputs()  # what was computed ahead in vain
        all_ids = np.zeros((size, 1), np.int64)
        all_ids[places, 0] = ids
        step.ids.update_inplace(all_ids)
        lengths = self._list_lengths(size)
        step.seqlens.update_inplace(lengths)
        return self._launch(step, size, int(lengths[0]), steps)

    def _launch(self, step: _Step, size: int, cursor: int, steps: int) -> _Ahead:
        for _ in range(steps):
            self._run(step, str(size), wait=False)
        return _Ahead(step, size, cursor, steps, {})

    def keep(self, rows: int) -> None:
        """As `Model.keep`."""
        self._active = rows

    def move(self, source: int, target: int) -> None:
        """As `Model.move`; nothing is copied, the two slots change places."""
        physical = self._physical
        physical[source], physical[target] = physical[target], physical[source]
        self._lengths[target], self._lengths[source] = self._lengths[source], 0
        self._active = max(self._active, target + 1)

    def read_prefix(self, slot: int, start: int, stop: int) -> Array:
        """Raise: beginnings are computed anew here, which takes no longer than a copy through the host."""
        raise InvalidInputError("a model on a GPU gives no keys and values out")

    def write_prefix(self, slot: int, start: int, values: Array) -> None:
        """As `read_prefix`."""
        raise InvalidInputError("a model on a GPU takes no keys and values in")

    def close(self) -> None:
        """As `Model.close`."""
        self._steps.clear()
        self._caches.clear()
        self._session = None

    def _check_open(self) -> None:
        if self._session is None:
            raise InvalidInputError("the model is closed")

    def _take_lowest(self, slot: int) -> None:
        """Give a new prompt the lowest physical slot that is idle, so that batches stay small."""
        self._lengths[slot] = 0
        waiting = [other for other in range(self.slots, self._rows) if not self._lengths[other]]
        idle = [*range(self._active, self.slots), *waiting]
        best = min(idle, key=lambda other: self._physical[other])
        physical = self._physical
        physical[slot], physical[best] = physical[best], physical[slot]

    def _take_neighbours(self, first: int, most: int) -> tuple[int, int]:
        """Give the slots from `first` on neighbouring idle physical ones, the lowest `most` or else the longest run.

        Returns:
            The first of these, and how many they are.
        """
        staged = (slot for slot in range(self.slots, self._rows) if not self._lengths[slot])
        idle = {self._physical[slot] for slot in (*range(first, self.slots), *staged)}
        best = (0, 0)
        run = 0
        for place in range(self._rows):
            run = run + 1 if place in idle else 0
            if run > best[1]:
                best = (place + 1 - run, run)
            if run == most:
                break
        start, count = best
        physical = self._physical
        for slot, place in enumerate(range(start, start + count), first):
            other = physical.index(place)
            physical[slot], physical[other] = physical[other], physical[slot]
        return start, count

    def _list_lengths(self, size: int) -> Array:
        """Return the lengths of the first physical slots; those in nobody's use may be anything small."""
        lengths = np.zeros(self._rows, np.int32)
        lengths[self._physical] = self._lengths
        return np.minimum(lengths, self.context)[:size]

    def _run(self, step: _Step, graph: str, *, wait: bool) -> None:
        options = self._options.get((graph, wait))
        if options is None:
            options = self._options[graph, wait] = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", graph)
            options.add_run_config_entry("disable_synchronize_execution_providers", "0" if wait else "1")
        self._session.run_with_iobinding(step.binding, options)

    def _allocate(self, shape: Sequence[int], element: type[np.generic]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), element, self._device, 0)

    def _bind(self, start: int, count: int, length: int) -> _Step:
        """Bind the physical slots from `start` on, `length` tokens of each."""
        a = self.architecture
        ids = self._allocate([count, length], np.int64)
        # A prompt's next token has another shape than the prompt.
        next_ids = ids if length == 1 else self._allocate([count, 1], np.int64)
        seqlens = self._allocate([count], np.int32)
        ring = self._allocate([_RING, count, RING_WIDTH], np.float32)
        logits = self._allocate([count, a.vocab], np.float32)
        # Read by the host at capture: it must be the largest that ever comes.
        total = ort.OrtValue.ortvalue_from_numpy(np.array(self._room, np.int32))
        binding = self._session.io_binding()
        for name, value in (("input_ids", ids), ("seqlens_k", seqlens), ("ring", ring)):
            binding.bind_ortvalue_input(name, value)
        if self._takes_total:
            binding.bind_ortvalue_input("total_sequence_length", total)
        for name, value in (("logits", logits), ("next_ids", next_ids), ("next_seqlens", seqlens), ("next_ring", ring)):
            binding.bind_ortvalue_output(name, value)
        shape = [count, a.kv_heads, self._room, a.head_dim]
        for name, cache in self._caches.items():
            place = cache.data_ptr() + start * self._slot_bytes
            where = (self._device, 0, self._element, shape, place)
            binding.bind_input(f"past.{name}", *where)
            binding.bind_output(f"present.{name}", *where)
        return _Step(binding, ids, seqlens, ring, logits, [total, next_ids])


def _read_ring(step: _Step, cursor: int, steps: int, rows: Sequence[int]) -> Scores:
    """Return what the ring holds of some steps and physical rows."""
    places = [(cursor + number) % _RING for number in range(steps)]
    block: Floats = step.ring.numpy()[places][:, rows]  # [steps, rows, 4]
    tokens, logprobs, entropies, margins = np.moveaxis(block, (2, 1), (0, 1))
    return Scores(
        # The engine looks at the scores before it takes a token: what is no number ends its own response only.
        tokens=np.nan_to_num(tokens).astype(np.int64).tolist(),
        logprobs=logprobs.tolist(),
        entropies=np.maximum(entropies, 0).tolist(),
        margins=margins.tolist(),
        logits=partial(_fetch_logits, step.logits, list(rows)),
    )


def _fetch_logits(logits: ort.OrtValue, rows: list[int], row: int) -> Floats:
    fetched: Floats = logits.numpy()[rows[row]]
    return fetched
