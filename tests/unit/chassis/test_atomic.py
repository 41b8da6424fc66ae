"""Durable writes: in full or not at all, on a disk that is really full too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shammah_chassis.atomic import aside_path, copy_durably, sweep_aside, write_atomic, write_new
from shammah_chassis.errors import StorageFullError
from shammah_chassis.manifest import digest_file


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep/file"
    write_atomic(path, b"a longer old text")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_mode_is_kept(tmp_path: Path) -> None:
    write_atomic(tmp_path / "secret", b"x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_copy_says_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom((1 << 20) + 7))
    assert copy_durably(tmp_path / "a", tmp_path / "b") == digest_file(tmp_path / "a")


def test_only_what_was_abandoned_is_swept(tmp_path: Path) -> None:
    old, young, other = aside_path(tmp_path / "x"), aside_path(tmp_path / "x"), tmp_path / "other"
    old.mkdir()
    (old / "file").write_bytes(b"x")
    for path in (young, other):
        path.write_bytes(b"x")
    past = time.time() - 100
    os.utime(old, (past, past))
    os.utime(other, (past, past))
    assert sweep_aside(tmp_path, older_than_seconds=50) == [old.name]
    assert young.exists()
    assert other.exists()


FULL = """
import resource, sys
from pathlib import Path
from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import StorageFullError
folder = Path(sys.argv[1])
write_atomic(folder / "file", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(folder / "file", b"x" * 5000)
except StorageFullError as error:
    print(error)
"""


def test_a_write_that_does_not_fit_leaves_the_old_file(tmp_path: Path) -> None:
    """A real limit of the operating system, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "no space left while writing file" in ended.stdout
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_named(small_disk: Path) -> None:
    write_atomic(small_disk / "small", b"fits")
    with pytest.raises(StorageFullError, match="big"):
        write_atomic(small_disk / "big", b"x" * (4 << 20))
    assert [path.name for path in small_disk.iterdir()] == ["small"]
