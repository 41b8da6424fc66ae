"""The journal of a teaching session: what was about to be done and what came of it, one JSON object a line.

A line is on disk before `append` returns. A torn last line (a kill in the middle of a write) is cut off when the
journal is opened. One process has a session at a time. It does not know what the lines mean.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import fsync_folder, storage_errors
from shammah_chassis.errors import ArtifactError, ConflictError, NotFoundError
from shammah_chassis.ulid import is_ulid, new_ulid

FILE_NAME = "journal.jsonl"
LOCK_NAME = "lock"
Entry = dict[str, Any]


class Journal:
    """The open journal of one session, held by this process alone; `entries` are all of its lines."""

    def __init__(self, folder: Path, *, lock: int, file: int, entries: list[Entry]) -> None:
        self.folder = folder
        self.entries = entries
        self._lock = lock
        self._file = file

    @property
    def session(self) -> str:
        """The id of the session: the name of its folder."""
        return self.folder.name

    def append(self, kind: str, values: Mapping[str, Any]) -> Entry:
        """Write one line, durably.

        Raises:
            StorageFullError: there is no room; what was written of the line is taken back.
        """
        entry: Entry = {"n": len(self.entries) + 1, "at": time.time(), "kind": kind, **values}
        # In ASCII: a lone surrogate, which a model may write, has no UTF-8.
        line = json.dumps(entry).encode() + b"\n"
        size = os.lseek(self._file, 0, os.SEEK_END)
        with storage_errors("the journal"):
            try:
                _write_all(self._file, line)
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
        self.entries.append(entry)
        return entry

    def of(self, kind: str) -> list[Entry]:
        """Return the lines of one kind, in order."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    def close(self) -> None:
        """Close the file and give the session up."""
        os.close(self._file)
        os.close(self._lock)


def create_journal(root: Path) -> Journal:
    """Begin a session in a new folder below `root`."""
    folder = root / new_ulid()
    folder.mkdir(parents=True)
    fsync_folder(root)
    return open_journal(folder)


def open_journal(folder: Path) -> Journal:
    """Take a session.

    Raises:
        NotFoundError: there is no such session. ConflictError: another process has it.
        ArtifactError: a line that is not the last one can't be read.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no session {folder.name!r} in {folder.parent}; shammah teach --list shows them")
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"session {folder.name} is run by another process") from error
        # Private: it holds queries and answers.
        file = os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            entries, end = _read(_read_all(file), folder.name)
            os.ftruncate(file, end)
            os.lseek(file, 0, os.SEEK_END)
            fsync_folder(folder)
        except BaseException:
            os.close(file)
            raise
    except BaseException:
        os.close(lock)
        raise
    return Journal(folder, lock=lock, file=file, entries=entries)


def read_journal(folder: Path) -> list[Entry]:
    """Return the lines of a session without taking it (another process may be writing); [] where there are none."""
    try:
        data = (folder / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return []
    return _read(data, folder.name)[0]


def list_sessions(root: Path) -> list[Path]:
    """Return the folders of all sessions, oldest first."""
    return sorted(path for path in root.iterdir() if is_ulid(path.name)) if root.is_dir() else []


def find_session(root: Path, name: str) -> Path:
    """Return the folder of a session; "last" is the newest.

    Raises:
        NotFoundError: there is none.
    """
    folders: Sequence[Path] = list_sessions(root)
    if name == "last" and folders:
        return folders[-1]
    for folder in folders:
        if folder.name == name:
            return folder
    raise NotFoundError(f"there is no session {name!r} in {root}; shammah teach --list shows them")


def _read(data: bytes, session: str) -> tuple[list[Entry], int]:
    """Return the whole lines and where they end; a last line without its end is left out."""
    whole = data.rfind(b"\n") + 1
    entries: list[Entry] = []
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ArtifactError(f"line {number} of the journal of session {session} can't be read: {error}") from error
        if not isinstance(entry, dict) or entry.get("n") != number or not isinstance(entry.get("kind"), str):
            raise ArtifactError(f"line {number} of the journal of session {session} is not the line {number} of one")
        entries.append(entry)
    return entries, whole


def _read_all(file: int) -> bytes:
    parts = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
