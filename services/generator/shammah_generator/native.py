"""The library of our own CPU operators: where it is, whether this machine can run it, and how it is built.

    python -m shammah_generator.native     # builds it ahead; `make setup` does

The library is optional. Where it was not built, or the processor lacks AVX512-VNNI, the graph of ONNX Runtime's own
operators is served: the same weights at the same precision, slower. A service never compiles anything. It knows files
and a compiler's command line, not what the operators compute (`services/generator/native`).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).resolve().parent
# In a checkout, and in a wheel.
_SOURCES = (_HERE.parent / "native", _HERE / "native_sources")
_SOURCE = "cpu_ops.cc"
_NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "f16c", "fma", "bmi2"})
_FLAGS = (
    *("-std=c++20", "-O3", "-fPIC", "-shared", "-pthread", "-Wall", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mf16c", "-mfma", "-mbmi2"),
)
_AMX_FLAGS = ("-DSHAMMAH_AMX", "-mamx-tile", "-mamx-int8")
_COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, slots=True)
class Library:
    """The built library: its file, and whether the processor has AMX beside AVX512-VNNI."""

    path: Path
    amx: bool

    @property
    def functions(self) -> ctypes.CDLL:
        """Its functions that are no operators; the call lets other Python threads run."""
        return _load(self.path)


@cache
def find_library() -> Library | None:
    """Return the library, or None where it was not built or this processor can't run it; logged once."""
    if missing := find_missing_flags(Path("/proc/cpuinfo")):
        _LOG.info("CPU operators of our own need %s: ONNX Runtime's are used", ", ".join(sorted(missing)))
        return None
    path = name_library()
    if path is None or not os.path.isfile(path):  # false also where the folder may not be read
        _LOG.warning("CPU operators of our own are not built (python -m shammah_generator.native): serving is slower")
        return None
    try:
        level = int(_load(path).shammah_cpu_level())
    except (OSError, AttributeError) as error:
        _LOG.warning("CPU operators of our own can't be loaded, serving is slower: %s", error)
        return None
    return Library(path, amx=level > 1) if level else None


def find_missing_flags(cpuinfo: Path) -> frozenset[str]:
    """Return the instructions that the processor lacks; all of them where it can't be told."""
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        return _NEEDED
    lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return _NEEDED - frozenset(flags)


def name_library() -> Path | None:
    """Return where the library of these sources lies once it is built; None without sources or a home folder."""
    folder = next((folder for folder in _SOURCES if (folder / _SOURCE).is_file()), None)
    root = find_libraries()
    if folder is None or root is None:
        return None
    digest = hashlib.sha256(" ".join((*_FLAGS, *_AMX_FLAGS)).encode())
    for path in (*sorted(folder.glob("cpu_*")), folder / "ort_abi.h"):
        digest.update(path.read_bytes())
    return root / f"cpu-{digest.hexdigest()[:16]}.so"


def find_libraries() -> Path | None:
    """Return the folder of built libraries, which may not exist; None for a user without a home."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return root / "shammah" / "native"


def build_library() -> Path | None:
    """Compile the library unless it is there; returns its path, or None where this machine can't have it.

    Raises:
        subprocess.CalledProcessError: the compiler refuses the sources.
    """
    path = name_library()
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if path is None or compiler is None or platform.machine() != "x86_64":
        return None
    if not os.path.isfile(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = next(folder for folder in _SOURCES if (folder / _SOURCE).is_file())
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            made = Path(aside) / path.name
            _compile(compiler, folder / _SOURCE, made)
            made.replace(path)
    return path


def _compile(compiler: str, source: Path, target: Path) -> None:
    command = [compiler, *_FLAGS, str(source), "-o", str(target)]
    # An older compiler may not know AMX; all others must take the rest.
    if subprocess.run([*command, *_AMX_FLAGS], capture_output=True, check=False).returncode:
        subprocess.run(command, check=True)


@cache
def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def main() -> int:
    """Build the library and say what came of it; 1 where the compiler refuses or nothing can be written."""
    try:
        path = build_library()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"not built, ONNX Runtime's own operators will be used: {error}", file=sys.stderr)
        return 1
    if path is None:
        print("no C++ compiler (or no x86-64, sources or home): ONNX Runtime's own operators will be used")
        return 0
    missing = find_missing_flags(Path("/proc/cpuinfo"))
    print(f"built {path}" if not missing else f"built {path}; this processor lacks {', '.join(sorted(missing))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
