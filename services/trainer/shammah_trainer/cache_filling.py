"""The process that a `CacheFiller` starts: `python -m shammah_trainer.cache_filling PART DEVICE`, the plan as input.

It computes one bin of made-up numbers by compiled blocks, or their loss, and so leaves them in the compiler's caches.
Where the plan is late it computes something small meanwhile, which loads what a compiler loads only when it is used.
Its last line of output says how many seconds what took. It ends with whoever holds its input's other end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import sys
import threading
import time

_BEGAN = time.monotonic()


def _wake_driver() -> None:
    """Let CUDA's driver find its devices, which takes a while and nothing of Python, while torch is loaded."""
    with contextlib.suppress(OSError):  # no driver: torch will say so
        ctypes.CDLL("libcuda.so.1").cuInit(0)


if __name__ == "__main__" and sys.argv[2].startswith("cuda"):
    threading.Thread(target=_wake_driver, name="driver", daemon=True).start()

import torch  # noqa: E402

from shammah_trainer.cache_filler import PARTS, Part  # noqa: E402
from shammah_trainer.compile_plan import CompilePlan, make_bin, make_flat  # noqa: E402
from shammah_trainer.head_loss import HeadLoss  # noqa: E402
from shammah_trainer.rehearsal import compile_parts  # noqa: E402

_LOADED = time.monotonic()


def compute(plan: CompilePlan, part: Part) -> None:
    """Compile by computing forward and backward once."""
    block, softmax = compile_parts()
    flat, batch = make_flat(plan), make_bin(plan)
    if part == "blocks":
        flat.compute_states(batch, block).float().sum().backward()
    else:
        states = torch.zeros((plan.shape.labels, plan.words.shape[1]), dtype=plan.geometry.dtype, device=plan.device)
        HeadLoss.apply(
            states.requires_grad_(), flat.head, batch.targets.long(), batch.weights, plan.chunk, softmax
        ).backward()
    if plan.device.startswith("cuda"):
        torch.cuda.synchronize()


def warm_up(device: str) -> None:
    """Compile something small, forward and backward: the compiler's later parts are loaded, its workers are started."""

    def compute_small(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(x @ weight).sum()

    small = torch.compile(compute_small, dynamic=False, fullgraph=True)
    small(*(torch.ones((16, 16), device=device, requires_grad=True) for _ in range(2))).backward()


def main() -> None:
    """Get ready, wait for the plan, compile."""
    part = next(part for part in PARTS if part == sys.argv[1])
    os.nice(5)  # what is served meanwhile goes first
    # The device takes seconds to start, and the compiler to be loaded: the one waits outside of Python.
    start = threading.Thread(target=lambda: torch.zeros(1, device=sys.argv[2]), name="device")
    start.start()
    if sys.argv[2].startswith("cuda"):
        _start_workers()
    import torch._inductor.compile_fx

    start.join()
    ready = time.monotonic()
    if not select.select([sys.stdin], [], [], 0)[0]:
        warm_up(sys.argv[2])
    warm = time.monotonic()
    plan: CompilePlan = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_watch, name="watch", daemon=True).start()
    given = time.monotonic()
    torch.set_num_threads(plan.threads)
    if plan.precision and torch.backends.cuda.matmul.fp32_precision != plan.precision:
        torch.backends.cuda.matmul.fp32_precision = plan.precision
    compute(plan, part)
    done = time.monotonic()
    took = {"load": _LOADED - _BEGAN, "start": ready - _BEGAN, "warm": warm - ready, "wait": given - warm}
    print(json.dumps(took | {"compile": done - given}), flush=True)
    os._exit(0)  # without a wait for workers that have nothing to do any more: they see it and end


def _start_workers() -> None:
    """Start the compiler's own workers: they load torch too, and until then kernels are compiled one by one here.

    By itself the compiler starts them with the first graph that it is given.
    """
    with contextlib.suppress(ImportError):  # no public name: without it they start then
        from torch._inductor.async_compile import maybe_warm_pool

        maybe_warm_pool()


def _watch() -> None:
    while sys.stdin.buffer.read(1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
