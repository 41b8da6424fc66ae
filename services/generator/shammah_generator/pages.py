"""Memory in large pages, where the system gives them: weights and key/value buffers are read from end to end.

Reading 140 MB by pages of 4 KB costs a look-up (two, in a virtual machine) every few hundred nanoseconds, and the
processor stops fetching ahead at the end of each page. It knows bytes, not what they mean.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shammah_generator.arrays import Array

_PAGE = 2 << 20


def make_zeros(shape: tuple[int, ...], kind: DTypeLike) -> Array:
    """Return zeros at the beginning of a large page; a page is taken from the system when it is first touched."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return _map(size)[:size].view(kind).reshape(shape)


def _map(size: int) -> NDArray[np.uint8]:
    # A page more, to begin where a large one does.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    area: Any = mmap.mmap(-1, size + _PAGE, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages
            area.madvise(mmap.MADV_HUGEPAGE)
    memory: NDArray[np.uint8] = np.frombuffer(area, np.uint8)
    start = -memory.ctypes.data % _PAGE
    return memory[start : start + size]
