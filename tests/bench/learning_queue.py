"""Tasks of a study shared out over several GPUs, a few processes on each; what is written stays when time is over.

A task is a name; a process claims it by making a file of that name. Each result is one line of one file, written at
once. It knows no model and no study.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_GRACE_SECONDS = 20.0
"""After the time is over a process may end the point that it is at."""
_COMPILE_SECONDS = 150.0


def run_workers(command: Sequence[str], *, gpus: int, workers: int, queue: Path, seconds: float) -> int:
    """Start `workers` processes of `command` on each GPU (0 GPUs: on the CPU); return how many failed.

    They get `SHAMMAH_STUDY_QUEUE` and `SHAMMAH_STUDY_UNTIL`, one cache of compiled code, and their share of the cores.
    With CUDA_VISIBLE_DEVICES set, the first `gpus` of these are used: two studies can share a machine.
    """
    queue.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // max(1, gpus * workers))
    shared = {
        "SHAMMAH_STUDY_QUEUE": str(queue),
        "SHAMMAH_STUDY_UNTIL": str(time.time() + seconds),
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(queue / "inductor")),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") or ",".join(map(str, range(gpus)))
    devices = visible.split(",")[:gpus]
    running = []
    for number in range(max(1, gpus) * workers):
        # One process on each GPU first: they are the ones that begin.
        own = {"CUDA_VISIBLE_DEVICES": devices[number % gpus]} if gpus else {}
        with (queue / f"worker{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=os.environ | shared | own, stdout=log, stderr=subprocess.STDOUT
            )
        running.append(process)
    until = time.monotonic() + seconds + _GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for number, process in enumerate(running):
        lines = (queue / f"worker{number}.log").read_text("utf-8", "replace").splitlines()
        print(f"worker {number}: exit code {process.returncode}", *lines[-6:], sep="\n  ", flush=True)
    return sum(process.returncode != 0 for process in running)


def claim_tasks(names: Sequence[str], *, divisible: bool = False) -> Iterator[str]:
    """Yield each task that nobody else has, while there is time for one more like the longest so far.

    `divisible`: tasks ask `has_time` themselves on their way.
    """
    queue, until = Path(os.environ["SHAMMAH_STUDY_QUEUE"]), float(os.environ["SHAMMAH_STUDY_UNTIL"])
    longest = 0.0
    for name in names:
        if time.time() + (0.0 if divisible else longest) > until:
            return
        try:
            (queue / f"{name}.task").touch(exist_ok=False)
        except FileExistsError:
            continue
        began = time.time()
        yield name
        longest = max(longest, time.time() - began)


def has_time(seconds: float) -> bool:
    """Say whether so many seconds are left."""
    return time.time() + seconds <= float(os.environ["SHAMMAH_STUDY_UNTIL"])


def write_point(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a line; several processes may."""
    line = (json.dumps(entry) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


class CompileTurn:
    """The first process compiles alone, the others find what it left in the cache: `with CompileTurn(): ...`."""

    def __init__(self) -> None:
        queue = Path(os.environ["SHAMMAH_STUDY_QUEUE"])
        self._mine, self._done = queue / "compiling", queue / "compiled"

    def __enter__(self) -> None:
        try:
            self._mine.touch(exist_ok=False)
        except FileExistsError:
            until = time.monotonic() + _COMPILE_SECONDS
            while not self._done.exists() and time.monotonic() < until:
                time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self._done.touch()
