"""The library of our own CUDA operators: where it is, and how nvcc builds it.

    python -m shammah_generator.native_cuda [90]     # builds it ahead, for this GPU's compute capability or another

The library is optional. Where it was not built, the graph of ONNX Runtime's own operators is served: the same weights
at the same precision, slower. A service never compiles anything. It knows files and a compiler's command line, not what
the operators compute (`services/generator/native`).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from shammah_generator.native import find_libraries

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).resolve().parent
# In a checkout, and in a wheel.
_FOLDERS = (_HERE.parent / "native", _HERE / "native_sources")
_SOURCE = "cuda_ops.cu"
_HEADERS = (
    "ort_abi.h",
    "cuda_attention.cuh",
    "cuda_base.cuh",
    "cuda_device.cuh",
    "cuda_linear.cuh",
    "cuda_readout.cuh",
)
_FLAGS = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC")
_OLDEST = 80
"""Compute capability (8.0 is 80) from which the kernels are built; they were measured on 9.0."""
_MAJOR, _MINOR = 75, 76  # cudaDeviceAttr, in driver_types.h


@cache
def find_cuda_library() -> Path | None:
    """Return the library for this machine's GPU, or None where it was not built; logged once."""
    capability = read_capability()
    path = None if capability is None else name_cuda_library(capability)
    if path is not None and os.path.isfile(path):  # false also where the folder may not be read
        return path
    _LOG.warning(
        "CUDA operators of our own are not built for compute capability %s (python -m shammah_generator.native_cuda): "
        "decoding is slower",
        capability,
    )
    return None


def read_capability() -> int | None:
    """Return the compute capability of the first GPU (9.0 is 90), or None where there is none."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
            or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        )
        return None if failed else 10 * major.value + minor.value
    return None


def name_cuda_library(capability: int) -> Path | None:
    """Return where the library of these sources lies once it is built; None without sources or a home folder."""
    folder = next((folder for folder in _FOLDERS if (folder / _SOURCE).is_file()), None)
    root = find_libraries()
    if folder is None or root is None:
        return None
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for name in (_SOURCE, *_HEADERS):
        digest.update((folder / name).read_bytes())
    return root / f"cuda-{capability}-{digest.hexdigest()[:16]}.so"


def build_cuda_library(capability: int) -> Path | None:
    """Compile the library unless it is there; returns its path, or None where there are no sources or is no nvcc.

    Raises:
        subprocess.CalledProcessError: nvcc refuses; what it says is on standard error.
    """
    path, compiler = name_cuda_library(capability), find_compiler()
    if path is None or compiler is None or capability < _OLDEST:
        return None
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = next(folder for folder in _FOLDERS if (folder / _SOURCE).is_file())
    with tempfile.TemporaryDirectory(dir=path.parent) as aside:
        made = Path(aside) / path.name
        command = [compiler, *_FLAGS, f"-arch=sm_{capability}", "-o", str(made), str(folder / _SOURCE)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        os.replace(made, path)
    return path


def find_compiler() -> str | None:
    """Return nvcc, from the path, `CUDA_HOME` or where CUDA is usually installed."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = [str(Path(home) / "bin") for home in homes if home]
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(places))


def main(arguments: list[str]) -> int:
    """Build for the capability that is given, else for this machine's GPU."""
    capability = int(arguments[0]) if arguments else read_capability()
    if capability is None:
        print("no GPU here: name a compute capability, as in `python -m shammah_generator.native_cuda 90`")
        return 1
    path = build_cuda_library(capability)
    print(path or f"not built: nvcc, the sources and a compute capability of {_OLDEST} or more are needed")
    return 0 if path else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
