"""How fast this machine reads memory: the floor under a decoding step, which must read every weight once."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from pathlib import Path

_SOURCE = Path(__file__).with_name("read_memory.c")
_PASSES = 60
_AHEAD = (0, 2048, 8192)
"""Bytes that the C program asks for beforehand; the best counts."""


class MemoryReader:
    """Measures reading `size` bytes again and again, by a C program where gcc is there and by torch; the best counts.

    The size matters: what fits a cache is read faster, so it is that of what a step reads.
    """

    def __init__(self, size: int, *, threads: int, folder: Path) -> None:
        import torch

        self._size = size
        self._threads = threads
        self._values = torch.ones(size // 4, dtype=torch.int32)
        self._program: Path | None = None
        if shutil.which("gcc"):
            self._program = folder / "read_memory"
            flags = ["-O3", "-march=native", "-pthread"]
            subprocess.run(["gcc", *flags, "-o", str(self._program), str(_SOURCE)], check=True)

    def measure(self) -> tuple[float, str]:
        """Return bytes a second of the faster way (its median pass) and the name of the way."""
        import torch

        torch.set_num_threads(self._threads)
        seconds = []
        for _ in range(_PASSES):
            begun = time.perf_counter()
            self._values.sum()
            seconds.append(time.perf_counter() - begun)
        found = {"torch.sum": self._size / statistics.median(seconds)}
        for ahead in _AHEAD if self._program else ():
            command = [str(self._program), *map(str, (self._size, self._threads, _PASSES, ahead))]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            # Less the first pass, which brings the data into what cache it fits.
            found[f"a C loop, {ahead} bytes ahead"] = self._size / statistics.median(map(float, lines[1:]))
        best = max(found, key=found.__getitem__)
        return found[best], best
