"""Processes that compile a training's blocks beside it, only for what that leaves in the compiler's caches on disk.

In a thread the compiler shares Python's lock with the steps and takes some 37 s; in processes of its own a third. The
blocks are compiled in one, the loss in another. What they left is found by the training's own compilation, in seconds.
Whatever goes wrong here costs that time and nothing else. It knows plans, no training.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Literal, get_args

import torch

from shammah_trainer.compile_plan import CompilePlan

Part = Literal["blocks", "loss"]
PARTS: tuple[Part, ...] = get_args(Part)

_MOST_SECONDS = 120.0  # later than this the training compiles for itself
_ROOM_BYTES = 24 << 30  # of the device: each process takes up to some 5 GiB of it for a few seconds
_MODULE = "shammah_trainer.cache_filling"


class CacheFiller:
    """Processes that were started ahead of the plan, because loading torch takes them seconds. Always `close`."""

    def __init__(self, device: torch.device, *, module: str = _MODULE, most_seconds: float = _MOST_SECONDS) -> None:
        """Start them for a device. They end when this process does, however it ends: each sees the end of its input.

        Raises:
            OSError: no process could be started.
        """
        self.seconds: dict[str, float] = {}
        self._most = most_seconds
        self._plan: CompilePlan | None = None
        self._began = self._given = time.monotonic()
        self._closed = False
        self._lock = threading.Lock()
        self._children: list[_Child] = []
        try:
            for part in PARTS:
                self._children.append(_Child(module, part, device))
        except OSError:
            self.close()
            raise

    def give(self, plan: CompilePlan) -> None:
        """Say what is to be compiled; waits for nothing. What it may take counts from here."""
        self._plan = plan
        self._given = time.monotonic()
        for child in self._children:
            child.give(plan)

    def fill(self) -> str:
        """Wait until all is compiled, or nothing will be; return a sentence about it, empty when it was before.

        A thread may wait here while another one closes.
        """
        mark = _find_mark(self._plan) if self._plan is not None else None
        if mark is None or mark.exists():
            self.close()
            return ""
        problem = ""
        for child in self._children:
            problem = problem or child.wait(self._given + self._most - time.monotonic())
            self.seconds |= child.seconds
        self.seconds["given"] = self._given - self._began
        self.seconds["fill"] = time.monotonic() - self._began
        self.close()
        if problem:
            return f"a process beside the training could not compile for it ({problem}): compiled in a thread"
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        return f"compiled in processes beside the training in {self.seconds['fill']:.1f} s"

    @property
    def began(self) -> float:
        """When they were started, by the monotonic clock."""
        return self._began

    @property
    def closed(self) -> bool:
        """Whether nothing is compiled here any more."""
        return self._closed

    def close(self) -> None:
        """End what still runs; whoever waits in `fill` goes on."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.close()

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids."""
        return tuple(child.process.pid for child in self._children)


def has_room(device: torch.device) -> bool:
    """Whether other processes may use a GPU beside this one without taking what a training needs."""
    if device.type != "cuda":
        return True
    free: int = torch.cuda.mem_get_info(device)[0]
    return free >= _ROOM_BYTES


class _Child:
    """One process: its plan goes in, one line of JSON with seconds by name comes out."""

    def __init__(self, module: str, part: Part, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._part = part
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as above
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, part, str(device)],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=self._said,
            env=_make_environment(),
            start_new_session=True,  # an interrupt at the keyboard is the training's to judge
        )

    def give(self, plan: CompilePlan) -> None:
        into = self.process.stdin
        if into is not None:
            # A process that has died is noticed where it is waited for.
            with contextlib.suppress(BrokenPipeError):
                into.write(pickle.dumps(plan))
                into.flush()

    def wait(self, seconds: float) -> str:
        """Return what went wrong, in words, or nothing."""
        try:
            code = self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return f"{self._part}: not done in time"
        if code:
            return f"{self._part}: exit {code}, {_last_line(self._said) or 'without a word'}"
        try:
            found: dict[str, float] = json.loads(_last_line(self._out))
        except ValueError:
            return f"{self._part}: no answer"
        self.seconds = {f"{self._part}_{name}": round(value, 3) for name, value in found.items()}
        return ""

    def close(self) -> None:
        # Not what it started: half a file that a C compiler was writing would stay in the caches.
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self._out.close()
        self._said.close()


def _make_environment() -> dict[str, str]:
    """Return this process' environment with its import path, one thread for sums, and a share of the compiler's."""
    found = dict(os.environ)
    found["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    found.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(2, min(8, (os.cpu_count() or 2) // len(PARTS)))))
    found["OMP_NUM_THREADS"] = "1"
    return found


def _find_mark(plan: CompilePlan) -> Path | None:
    """Return the file that says that the caches hold this plan (it goes when they go); None without caches."""
    import torch._inductor.config as config
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    if not config.fx_graph_cache or config.force_disable_caches:
        return None
    return Path(cache_dir()) / "shammah" / plan.digest()


def _last_line(file: IO[bytes]) -> str:
    try:
        file.seek(0)
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except ValueError:  # closed meanwhile: nobody will read this
        return ""
    return lines[-1][:300] if lines else ""
