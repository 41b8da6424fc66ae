"""Durable writes: a file or folder is there in full or not at all.

Everything is written aside, fsynced, and only then given its name. It does not know what it writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from shammah_chassis.errors import StorageFullError
from shammah_chassis.manifest import FileEntry

# EFBIG is a per-process file size limit: for the caller the same thing as a full disk.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CHUNK = 1 << 20
ASIDE_PREFIX = ".aside-"


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn "disk full" of the enclosed block into a named error; other errors pass unchanged.

    Raises:
        StorageFullError: no space, quota spent, or a file size limit.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(f"no space left while writing {what}: {error.strerror}") from error
        raise


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def aside_path(path: Path) -> Path:
    """Return a fresh hidden name beside `path`, on the same file system, for writing aside."""
    return path.with_name(f"{ASIDE_PREFIX}{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file, replacing what was there; readers see the old or the new bytes, never a mixture.

    Raises:
        StorageFullError: the disk is full; the old file is unchanged.
    """
    with storage_errors(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _write_aside(path, data, mode)
        try:
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that must not exist yet.

    Raises:
        FileExistsError: the name is taken; its bytes are unchanged.
        StorageFullError: the disk is full; the name does not exist.
    """
    with storage_errors(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _write_aside(path, data, mode)
        try:
            # A link fails when the name exists; a rename would silently replace it.
            os.link(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        fsync_folder(path.parent)


def copy_durably(source: Path, target: Path) -> FileEntry:
    """Copy a file, fsync the copy, and return size and digest of the bytes that were written.

    Raises:
        StorageFullError: the disk is full; the partial copy is the caller's to remove.
    """
    digest = hashlib.sha256()
    size = 0
    with storage_errors(target.name), source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(_CHUNK):
            writer.write(block)
            digest.update(block)
            size += len(block)
        writer.flush()
        os.fsync(writer.fileno())
    return FileEntry(size=size, sha256=digest.hexdigest())


def sweep_aside(folder: Path, *, older_than_seconds: float) -> list[str]:
    """Remove what killed writers left aside in a folder; return the names that were removed.

    Younger ones are kept: they may belong to a writer at work.
    """
    removed = []
    limit = time.time() - older_than_seconds
    for path in folder.glob(f"{ASIDE_PREFIX}*"):
        try:
            if path.stat().st_mtime > limit:
                continue
        except FileNotFoundError:
            continue
        remove_tree(path)
        removed.append(path.name)
    return removed


def remove_tree(path: Path) -> None:
    """Remove a file or a folder with all in it; a missing one is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write_aside(path: Path, data: bytes, mode: int) -> Path:
    aside = aside_path(path)
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as writer:
            writer.write(data)
            writer.flush()
            os.fsync(writer.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside
