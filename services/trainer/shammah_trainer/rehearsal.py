"""Compiles a training's blocks in a thread, by computing one bin on copies of a few of them, while steps run eagerly.

Compiling takes some fifteen seconds and hardly any of the device; a long run is a third done by then. It knows the flat
model and its loss, not the steps: its caller asks whether it is `ready` and takes `block` and `softmax` over.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch

from shammah_trainer.flat_llama import Bin, Block, FlatLlama, read_weights, run_block
from shammah_trainer.head_loss import HeadLoss, SoftmaxStep, softmax_step
from shammah_trainer.student import Network

# The compiler is one long Python computation: at Python's own 5 ms each launch of a step would wait for it that long.
_SWITCH_SECONDS = 0.0005


class Rehearsal:
    """One compilation under way; `close` waits for its end."""

    def __init__(self, flat: FlatLlama, batch: Bin, *, chunk: int) -> None:
        """Begin at once. `batch` is computed and must not change; of the model nothing but copies is used."""
        self.block, self.softmax = compile_parts()
        self.error: Exception | None = None
        self.seconds = 0.0
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
        """Wait for its end and let the copies go. A compiler can't be stopped, and must not meet what comes after."""
        self._thread.join()
        sys.setswitchinterval(self._interval)
        self._flat = self._batch = None  # type: ignore[assignment]

    def _work(self) -> None:
        began = time.monotonic()
        try:
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
        self.seconds = time.monotonic() - began

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
    """Return what `FlatLlama` reads of a model, copied, with one block of each kind that is compiled apart.

    The kinds differ in whether a block's weights learn and whether anything below it does.
    """
    body = model.model
    below = bool(body.embed_tokens.weight.requires_grad)
    kinds: dict[tuple[bool, tuple[bool, ...]], Network] = {}
    for layer in body.layers:
        own = tuple(weight.requires_grad for weight in read_weights(layer))
        kinds.setdefault((below, own), layer)
        below = below or any(own)
    words = copy.deepcopy(body.embed_tokens)
    tied = model.lm_head.weight is body.embed_tokens.weight
    head = words.weight if tied else copy.deepcopy(model.lm_head).weight
    layers = [copy.deepcopy(layer) for layer in kinds.values()]
    copied = SimpleNamespace(embed_tokens=words, layers=layers, norm=copy.deepcopy(body.norm))
    return SimpleNamespace(model=copied, lm_head=SimpleNamespace(weight=head), config=model.config)
