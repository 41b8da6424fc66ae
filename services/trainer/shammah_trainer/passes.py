"""Forward and backward of one bin on one device: eager, with compiled blocks, or as one replayed CUDA graph.

Bins reach a GPU as one pinned buffer of a fixed shape. It knows the flat model and its loss; the order of bins and the
optimiser are its caller's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shammah_trainer.attention import Attention, choose_attention
from shammah_trainer.batches import BinShape, Filled
from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.compile_plan import describe, view_bin
from shammah_trainer.flat_llama import Bin, Block, FlatLlama, run_block
from shammah_trainer.head_loss import HeadLoss, SoftmaxStep, measure_tokens, softmax_step
from shammah_trainer.rehearsal import Rehearsal, compile_parts
from shammah_trainer.student import Network

_CHUNK = {"cuda": 8192, "cpu": 1024}  # learned ids whose logits exist at once: 1.6 GB or 0.2 GB for 49k words
_STEPS_AHEAD = 2
_WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class PassOptions:
    """What is tried: compiled blocks, one CUDA graph. `behind`: compiled in a thread, while bins are computed."""

    compiled: bool = False
    graph: bool = False
    behind: bool = False


class Passes:
    """Computes bins of one shape (or of any, without a shape) and adds to gradients and loss."""

    def __init__(
        self,
        model: Network,
        *,
        longest: int,
        shape: BinShape | None,
        options: PassOptions,
        way: Attention | None = None,
        filler: CacheFiller | None = None,
    ) -> None:
        """Choose the attention for the device, if `way` does not say it. `longest`: no row is longer.

        `filler`: processes that compile ahead of the thread; closed here.
        """
        weight = model.model.embed_tokens.weight
        self.device: torch.device = weight.device
        # On a CPU without AMX bf16 is slower than fp32 (measured: 172 against 265 tokens/s).
        half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        dtype = torch.bfloat16 if half else torch.float32
        config = model.config
        heads, kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        way = way or choose_attention(self.device, dtype, heads=heads, kv_heads=kv_heads, size=int(config.head_dim))
        if way == "rows" and shape is not None:
            way = "padded"  # a loop over rows can't be compiled
        self.flat = FlatLlama(model, dtype=dtype, way=way, longest=shape.longest if shape else longest)
        self.shape = shape
        self.loss = torch.zeros((), dtype=torch.float32, device=self.device)
        self.notes: list[str] = []
        self.seconds = 0.0
        self._options = options
        self._block: Block = run_block
        self._softmax: SoftmaxStep = softmax_step
        self.chunk = _CHUNK.get(self.device.type, 1024)
        self._buffer: Tensor | None = None
        self._graph: Any = None
        self._rehearsal: Rehearsal | None = None
        self._filler = filler
        self._launched: deque[Any] = deque()
        self.timings: dict[str, float] = {}

    @property
    def improvable(self) -> bool:
        """Whether compiled blocks have become ready: see `improve`."""
        return self._rehearsal is not None and self._rehearsal.ready

    def pace(self) -> None:
        """While blocks are being compiled, wait for the step before the last: steps that are launched stay eager.

        A launch costs a fiftieth of a step, so all steps of a run could be on their way before the compiler is done.
        """
        if self._rehearsal is None or self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()  # type: ignore[no-untyped-call]
        self._launched.append(event)
        if len(self._launched) > _STEPS_AHEAD:
            self._launched.popleft().synchronize()  # type: ignore[no-untyped-call]

    @property
    def engine(self) -> str:
        """How a bin is computed, in words."""
        words = [str(self.flat.geometry.dtype).removeprefix("torch."), f"{self.flat.geometry.way} attention"]
        words += ["compiled"] if self._block is not run_block else []
        words += ["CUDA graph"] if self._graph is not None else []
        return ", ".join(words)

    def add(self, staged: Tensor | Bin) -> None:
        """Run forward and backward of a staged bin, adding to the gradients and to `loss`; waits for nothing."""
        if isinstance(staged, Bin):
            self._run(staged)
            return
        self._load(staged)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._run(self._view())

    def prepare(self, staged: Tensor | Bin) -> None:
        """Compile and capture as the options say, trying on a real bin; what fails is noted and done without.

        Gradients and loss hold leftovers afterwards: clear them.
        """
        if isinstance(staged, Bin) or not (self._options.compiled or self._options.graph):
            return
        started = time.monotonic()
        self._load(staged)
        behind = self._options.compiled and self._options.behind
        if behind and self._filler is not None and self.shape is not None:
            self._filler.give(describe(self.flat, self.shape, chunk=self.chunk))
        if self._options.compiled and not behind:
            self._compile()
            self._note("compile", started)
        self._capture_if_wanted()
        if behind and self._buffer is not None:
            # The thread computes a bin of its own; another one is loaded here meanwhile.
            batch = self._view(self._buffer.clone())
            self._rehearsal = Rehearsal(self.flat, batch, chunk=self.chunk, filler=self._filler)
        self.seconds += time.monotonic() - started

    def improve(self, staged: Tensor | Bin) -> None:
        """Take over the compiled blocks that are ready. Leftovers as after `prepare`."""
        if self._rehearsal is None or isinstance(staged, Bin):
            return
        started = time.monotonic()
        rehearsal, self._rehearsal = self._rehearsal, None
        rehearsal.close()
        self.timings |= rehearsal.timings
        self.notes += rehearsal.notes
        if rehearsal.error is not None:
            self.notes.append(f"torch.compile failed, so blocks run eagerly: {_first_line(rehearsal.error)}")
            return
        self._load(staged)
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # the last replay must be over when its memory goes
        self._graph = None
        self._block, self._softmax = rehearsal.block, rehearsal.softmax
        self._run(self._view())
        self._note("take_over", started)
        self._capture_if_wanted()
        self.seconds += time.monotonic() - started

    def close(self) -> None:
        """Let the graph's memory go; a compilation that is under way in this process is waited for."""
        if self._filler is not None:
            self._filler.close()
        if self._rehearsal is not None:
            self._rehearsal.close()
            self._rehearsal = None
        self._graph = None
        self._buffer = None

    def _note(self, name: str, started: float) -> None:
        self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - started

    def _capture_if_wanted(self) -> None:
        if self.device.type != "cuda":
            return
        started = time.monotonic()
        if self._options.graph:
            self._capture()
        torch.cuda.synchronize()
        self._note("capture", started)

    def _run(self, batch: Bin) -> None:
        states = self.flat.compute_states(batch, self._block)
        targets = batch.targets.long()
        loss = HeadLoss.apply(states, self.flat.head, targets, batch.weights, self.chunk, self._softmax)
        self.loss += loss.detach()
        loss.backward()

    def _load(self, staged: Tensor) -> None:
        if self._buffer is None:
            self._buffer = torch.empty_like(staged, device=self.device)
        self._buffer.copy_(staged, non_blocking=True)

    def _view(self, buffer: Tensor | None = None) -> Bin:
        buffer = self._buffer if buffer is None else buffer
        if buffer is None or self.shape is None:
            raise RuntimeError("nothing was loaded")
        return view_bin(buffer, self.shape)

    def _compile(self) -> None:
        try:
            self._block, self._softmax = compile_parts()
            self._run(self._view())
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError, ImportError) as error:
            self._block, self._softmax = run_block, softmax_step
            self.notes.append(f"torch.compile failed, so blocks run eagerly: {_first_line(error)}")

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._run(self._view())
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads (prefetching) may take memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._run(self._view())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.notes.append(f"no CUDA graph could be captured: {_first_line(error)}")
            return
        self._graph = graph


def stage(filled: Filled, *, shape: BinShape | None, device: torch.device) -> Tensor | Bin:
    """Bring a bin into the form that `Passes.add` takes: on the device, or (with a shape) as one pinned buffer."""
    if shape is None:
        return _to_bin(filled, device)
    parts = (filled.ids, filled.places, filled.bounds, filled.at, filled.targets, filled.weights.view(np.int32))
    packed = torch.from_numpy(np.concatenate(parts).astype(np.int32, copy=False))
    return packed.pin_memory() if device.type == "cuda" else packed


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure(passes: Passes, bins: Sequence[Filled]) -> tuple[float, float, int, int]:
    """Return the weighted loss sum, the sum of weights, the rows that greedy decoding would answer right, and all rows.

    A row counts as right when each of its learned ids is the likeliest after those before it. Bins are unpadded; rows
    without learned ids are not counted.
    """
    loss = weight = 0.0
    right = rows = 0
    for filled in bins:
        batch = _to_bin(filled, passes.device)
        states = passes.flat.compute_states(batch)
        losses, hits = measure_tokens(states, passes.flat.head, batch.targets.long(), chunk=passes.chunk)
        loss += float((losses.double() * batch.weights.double()).sum())
        weight += float(filled.weights.sum(dtype=np.float64))
        row = np.searchsorted(filled.bounds, filled.at, side="right") - 1
        wrong = np.unique(row[~hits.cpu().numpy()])
        seen = len(np.unique(row))
        right, rows = right + seen - len(wrong), rows + seen
    return loss, weight, right, rows


def _to_bin(filled: Filled, device: torch.device) -> Bin:
    parts = (filled.ids, filled.places, filled.bounds, filled.at, filled.targets, filled.weights)
    return Bin(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
