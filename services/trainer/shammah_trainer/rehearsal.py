"""Compiles a training's blocks in a thread, by computing one bin on copies of a few of them, while steps run eagerly.

Compiling takes long and hardly any of the device, but Python's lock; with a `CacheFiller` other processes do it first
and the thread finds it done. It knows the flat model and its loss, not the steps: its caller asks whether it is `ready`
and takes `block` and `softmax` over.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.compile_plan import choose_kinds
from shammah_trainer.flat_llama import Bin, Block, FlatLlama, run_block
from shammah_trainer.head_loss import HeadLoss, SoftmaxStep, softmax_step

if TYPE_CHECKING:
    from shammah_trainer.student import Network  # transformers takes seconds to load; see cache_filling

# The compiler is one long Python computation: at Python's own 5 ms each launch of a step would wait for it that long.
_SWITCH_SECONDS = 0.0005


class Rehearsal:
    """One compilation under way; `close` waits for its end."""

    def __init__(self, flat: FlatLlama, batch: Bin, *, chunk: int, filler: CacheFiller | None = None) -> None:
        """Begin at once. `batch` is computed and must not change; of the model nothing but copies is used.

        `filler` was given its plan; it is waited for, and closed here.
        """
        self.block: Block = run_block
        self.softmax: SoftmaxStep = softmax_step
        self.error: Exception | None = None
        self.notes: list[str] = []
        self.timings: dict[str, float] = {}
        self._filler = filler
        self._stopped = False
        self._flat = flat.of_model(copy_kinds(flat.model))
        self._batch, self._chunk = batch, chunk
        self._threads = torch.get_num_threads()
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(_SWITCH_SECONDS, self._interval))
        self._thread = threading.Thread(target=self._work, name="compile", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it ended, well or not (`error`)."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Wait for its end and let the copies go. A compiler can't be stopped, and must not meet what comes after.

        In a process of its own it can be.
        """
        self._stopped = True
        if self._filler is not None:
            self._filler.close()
        self._thread.join()
        sys.setswitchinterval(self._interval)
        self._flat = self._batch = None  # type: ignore[assignment]

    def _work(self) -> None:
        began = time.monotonic()
        try:
            self._wait()
            if self._stopped:
                return
            self.block, self.softmax = compile_parts()
            # What was compiled counts for the same number of threads only, and a new thread does not inherit it.
            torch.set_num_threads(self._threads)
            if self._batch.ids.device.type == "cuda":
                # A stream of its own: the device as a whole never rests while steps are made.
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    self._compute()
                stream.synchronize()
            else:
                self._compute()
        except Exception as error:  # whatever it is, the steps go on eagerly and the caller says why
            self.error = error
        else:
            self._tell_hits()
        finally:
            self.timings["compile"] = time.monotonic() - began

    def _wait(self) -> None:
        """Let the caches be filled, and meanwhile load what compiling needs."""
        if self._filler is None:
            return
        began = time.monotonic()
        try:
            import torch._inductor.compile_fx
            import torch._inductor.runtime.triton_heuristics  # noqa: F401 - for their seconds

            self.timings["load_compiler"] = time.monotonic() - began
            note = self._filler.fill()
        except Exception as error:  # the thread compiles by itself
            self._filler.close()
            note = f"no process beside the training compiled for it ({error}): compiled in a thread"
        self.notes += [note] if note else []
        self.timings |= self._filler.seconds

    def _tell_hits(self) -> None:
        """Say how much of it the caches had, where they were filled for it: less than all costs time."""
        from torch._dynamo.utils import counters

        seen = counters["inductor"]
        hits, misses = seen["fxgraph_cache_hit"], seen["fxgraph_cache_miss"]
        if self._filler is not None and hits + misses:
            self.notes.append(f"the compiler's caches had {hits} of {hits + misses} graphs")

    def _compute(self) -> None:
        states = self._flat.compute_states(self._batch, self.block)
        batch, head = self._batch, self._flat.head
        loss = HeadLoss.apply(states, head, batch.targets.long(), batch.weights, self._chunk, self.softmax)
        loss.backward()


def compile_parts(backend: str | Callable[..., object] = "inductor") -> tuple[Block, SoftmaxStep]:
    """Return the two functions that are worth compiling; they are compiled when they are first called."""
    block: Block = torch.compile(run_block, backend=backend, dynamic=False, fullgraph=True)
    softmax: SoftmaxStep = torch.compile(softmax_step, backend=backend, dynamic=False, fullgraph=True)
    return block, softmax


def copy_kinds(model: Network) -> Network:
    """Return what `FlatLlama` reads of a model, copied, with one block of each kind that is compiled apart."""
    body = model.model
    words = copy.deepcopy(body.embed_tokens)
    tied = model.lm_head.weight is body.embed_tokens.weight
    head = words.weight if tied else copy.deepcopy(model.lm_head).weight
    layers = [copy.deepcopy(layer) for layer in choose_kinds(model)]
    copied = SimpleNamespace(embed_tokens=words, layers=layers, norm=copy.deepcopy(body.norm))
    return SimpleNamespace(model=copied, lm_head=SimpleNamespace(weight=head), config=model.config)
