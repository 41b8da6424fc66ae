"""The file of the ledger: read once at the start, replaced as a whole and durably. It knows no rule about money."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import InvalidInputError, UnavailableError

from shammah_gateway.money.books import Books, Spent
from shammah_gateway.money.caps import PURPOSES

# The file of an earlier gateway, beside ours: calls and tokens by purpose, without prices.
OLD_NAME = "teacher_calls.json"


class LedgerFile:
    """One file. `write` may be called from several threads: an older image never replaces a newer one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._adapter = TypeAdapter(Books)
        self._lock = threading.Lock()
        self._written = 0

    def read(self) -> Books:
        """Return what is there; empty books where nothing is. Blocking.

        Raises:
            InvalidInputError: the file is damaged; it is left as it is.
        """
        old = self.path.with_name(OLD_NAME)
        try:
            if self.path.exists():
                books = self._adapter.validate_json(self.path.read_bytes())
                for purpose in PURPOSES:
                    books.spent.setdefault(purpose, Spent())
                return books
            if old.exists():
                return _read_old(old.read_bytes())
        except (OSError, ValueError, TypeError, AttributeError) as error:
            path = self.path if self.path.exists() else old
            raise InvalidInputError(
                f"the ledger {path} is damaged ({_shorten(error)}). Put a good copy of it in its place, or move it "
                "away to begin at zero: the caps then count from zero too"
            ) from error
        return Books()

    def render(self, books: Books) -> bytes:
        """Return the image of books, to be written."""
        return self._adapter.dump_json(books)

    def write(self, image: bytes, number: int) -> None:
        """Replace the file durably, unless an image with a higher number is there already. Blocking.

        Raises:
            StorageFullError: no room. UnavailableError: the file can't be written for another reason.
        """
        with self._lock:
            if number <= self._written:
                return
            try:
                write_atomic(self.path, image, mode=0o600)
            except OSError as error:
                raise UnavailableError(f"the ledger {self.path} can't be written: {error.strerror}") from error
            self._written = number


def _read_old(data: bytes) -> Books:
    """Take over the counts of an earlier gateway, so that its caps on calls hold on; the prices are not known."""
    books = Books()
    for name, entry in json.loads(data).items():
        if name in books.spent:
            calls, given, made = (int(entry[key]) for key in ("calls", "input_tokens", "output_tokens"))
            books.spent[name] = Spent(calls=calls, unknown_calls=calls, input_tokens=given, output_tokens=made)
    return books


def _shorten(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()[:3])
    return f"{type(error).__name__}: {error}"[:200]
