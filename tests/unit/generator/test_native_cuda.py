from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from shammah_generator import native_cuda
from shammah_generator.native_cuda import build_cuda_library, find_cuda_library, name_cuda_library

FAKE = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != "-o" ]; do shift; done
echo built > "$2"
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a compiler on the path that writes down how it was called, and caches into a folder of their own."""
    compiler, log = tmp_path / "bin" / "nvcc", tmp_path / "log"
    compiler.parent.mkdir()
    compiler.write_text(FAKE.format(log=log))
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return log


def test_it_is_built_once_for_each_compute_capability(log: Path) -> None:
    first = build_cuda_library(90)
    assert first is not None and first.read_text() == "built\n"
    assert build_cuda_library(90) == first
    assert build_cuda_library(100) not in (None, first)
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert "-arch=sm_90" in lines[0] and "-arch=sm_100" in lines[1]
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".so", ".so"]


def test_every_source_that_it_includes_is_in_its_name() -> None:
    folder = native_cuda._FOLDERS[0]
    here = {path.name for path in folder.glob("cuda_*")} | {"ort_abi.h"}
    assert here == {native_cuda._SOURCE, *native_cuda._HEADERS}


def test_a_compiler_that_fails_leaves_nothing_behind(log: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "nvcc").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError):
        build_cuda_library(90)
    assert list((tmp_path / "cache" / "shammah" / "native").iterdir()) == []


def test_old_gpus_and_machines_without_a_compiler_do_without(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_cuda_library(70) is None
    monkeypatch.setattr(native_cuda, "find_compiler", lambda: None)
    assert build_cuda_library(90) is None


def test_without_a_library_a_warning_is_logged_once(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native_cuda, "read_capability", lambda: 90)
    find_cuda_library.cache_clear()
    assert find_cuda_library() is None
    assert find_cuda_library() is None
    assert len(caplog.records) == 1
    build_cuda_library(90)
    find_cuda_library.cache_clear()
    assert find_cuda_library() == name_cuda_library(90)
    find_cuda_library.cache_clear()
