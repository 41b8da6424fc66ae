"""The file of the audit log: lines are only ever added, fsynced, and a full file is set aside under another name.

All of it blocks; one thread at a time. It does not know what is noted or who waits for it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from shammah_chassis.atomic import fsync_folder, storage_errors
from shammah_chassis.errors import InvalidInputError, UnavailableError

from shammah_gateway.consent.chain import (
    FILE_NAME,
    GENESIS,
    Head,
    Note,
    hash_line,
    list_files,
    read_head,
    rotated_name,
    write_line,
)


class AuditFile:
    """The log in `folder`; a new file begins at `max_bytes`. Opened at the first write.

    A line that a kill tore was never told to be kept: it is cut off, and the next line says that it was there.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._handle: int | None = None
        self._size = 0
        self._first = 0
        self.head = Head()

    @property
    def path(self) -> Path:
        """The file that is written to now."""
        return self._folder / FILE_NAME

    def open(self) -> None:
        """Read where the chain ends; nothing when it is open.

        Raises:
            InvalidInputError: the end of the log is damaged. StorageFullError, UnavailableError: it can't be written.
        """
        if self._handle is not None:
            return
        with _named_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            torn = self._find_head()
            self._reopen()
        if torn:
            note = Note(time.time(), "torn_line", "", {"bytes": len(torn), "sha256": hash_line(torn)})
            self.append([note])

    def append(self, notes: Sequence[Note]) -> None:
        """Add lines; they are on the disk when this returns, all or none of them.

        Raises:
            As `open`.
        """
        self.open()
        head, lines = self.head, []
        for note in notes:
            line, head = write_line(head, note)
            lines.append(line)
        data = b"".join(lines)
        with _named_errors():
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._write(data)
        self._first = self._first or self.head.number + 1
        self._size += len(data)
        self.head = head

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, data: bytes) -> None:
        handle = self._need_handle()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            # Half a line would look as if somebody had cut it.
            try:
                os.ftruncate(handle, self._size)
            except OSError:
                # The next write opens the file again: what was torn is found, cut off and told of there.
                self.close()
            raise

    def _find_head(self) -> bytes:
        """Find the end of the chain and return what was torn after it."""
        torn = b""
        if self.path.is_file():
            data = self.path.read_bytes()
            whole = data.rfind(b"\n") + 1
            torn = data[whole:]
            if torn:
                os.truncate(self.path, whole)
        for path in reversed(list_files(self._folder)):
            lines = path.read_bytes().splitlines()
            if not lines:
                continue
            head, first = read_head(lines), read_head(lines[:1])
            if head is None or first is None:
                raise InvalidInputError(
                    f"the audit log {path} is damaged at its end. Keep a copy and move it away: a new chain begins then"
                )
            self.head = head
            self._first = first.number if path == self.path else 0
            return torn
        self.head = Head(0, GENESIS)
        return torn

    def _reopen(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._handle = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._handle).st_size
        fsync_folder(self._folder)

    def _rotate(self) -> None:
        os.rename(self.path, self._folder / rotated_name(self._first))
        self.close()
        self._first = 0
        self._reopen()

    def _need_handle(self) -> int:
        if self._handle is None:
            self._reopen()
        assert self._handle is not None
        return self._handle


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    try:
        with storage_errors("the audit log"):
            yield
    except OSError as error:
        raise UnavailableError(f"the audit log can't be written: {error.strerror or error}") from error
