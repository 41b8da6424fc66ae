"""The table of tokens: who holds which, and what it may do. It is read again while the service runs.

A token is a random text that only its holder has; the file keeps its SHA-256. A change of the file counts within a
second. It does not know how the file is changed (`token_book`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from shammah_chassis.scopes import METHOD_SCOPES, SCOPES, Caller, require_scope

# How often the file is looked at, at most: one `stat` in a second costs a call nothing.
LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)
_Seen = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One token of the file. `changed_at` (Unix seconds) and `changed_by` say who wrote it last, 0 and "" unknown."""

    name: str
    sha256: str
    scopes: frozenset[str]
    changed_at: float = 0.0
    changed_by: str = ""


class TokenTable:
    """The tokens that are known, by the SHA-256 of each.

    With a `path`, the file is read again when it has changed; one that is damaged or gone leaves the last good table
    in force, and `warning` says so. `on_change` is called with the entries before and after.
    """

    def __init__(
        self, callers: Mapping[str, Caller], *, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._callers = dict(callers)
        self._path = path
        self._clock = clock
        self._next_look = clock() + LOOK_SECONDS
        self._seen: _Seen | None = None
        self._entries: tuple[Entry, ...] = ()
        self.on_change: Callable[[tuple[Entry, ...], tuple[Entry, ...]], None] | None = None
        self.warning = ""

    @classmethod
    def load(cls, path: Path | None, *, clock: Callable[[], float] = time.monotonic) -> TokenTable:
        """Read `{"tokens": [{"name", "sha256", "scopes": [...]}]}`.

        Raises:
            InvalidInputError: no path, no such file, malformed, an unknown scope, or no token at all.
        """
        if path is None:
            raise InvalidInputError("tokens_file is not set; a service does not start without a table of tokens")
        table = cls({}, path=path, clock=clock)
        # Looked at before it is read: a change in between is then seen at the next look.
        table._seen = _look(path)
        table._take(read_entries(path))
        return table

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What the file held when it was last read in full; nothing for a table without one."""
        return self._entries

    def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller of an `authorization` header ("Bearer X").

        Raises:
            UnauthenticatedError: no header, another form, or a token that nobody issued.
        """
        self.refresh()
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("a token is needed: metadata or header 'authorization: Bearer <token>'")
        # Looked up by digest: neither the text nor its prefix can be found out by timing.
        caller = self._callers.get(hash_token(token.strip()))
        if caller is None:
            raise UnauthenticatedError("this token is not known")
        return caller

    def authorise(self, method: str, authorization: str | None) -> Caller:
        """Return the caller of a gRPC method if it may call it.

        Raises:
            UnauthenticatedError: as `authenticate`.
            ForbiddenError: the scope is missing, or the method is in no table.
        """
        caller = self.authenticate(authorization)
        scope = METHOD_SCOPES.get(method)
        if scope is None:
            raise ForbiddenError(f"{method} is in no table of scopes, so nobody may call it")
        require_scope(caller, scope)
        return caller

    def find(self, name: str) -> Caller | None:
        """Return who has a token of this name now, whatever it may do; None when nobody has."""
        return next((caller for caller in self._callers.values() if caller.name == name), None)

    def refresh(self) -> None:
        """Read the file again if it has changed; it is looked at once a second at most."""
        now = self._clock()
        if self._path is None or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        seen = _look(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            entries = read_entries(self._path)
        except InvalidInputError as error:
            self.warning = f"{error.message}; the grants of before hold on"
            _log.warning("%s", self.warning)
            return
        before, self.warning = self._entries, ""
        self._take(entries)
        _log.info("the table of tokens was read again: %d tokens", len(entries))
        if self.on_change is not None:
            self.on_change(before, entries)

    def _take(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries
        self._callers = {entry.sha256: Caller(entry.name, entry.scopes) for entry in entries}


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Return the tokens of a file. Blocking.

    Raises:
        InvalidInputError: no such file, malformed, an unknown scope, a name twice, or no token at all.
    """
    try:
        entries = tuple(_read_entry(row) for row in json.loads(path.read_text("utf-8"))["tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"tokens file {path} can't be used: {error}") from error
    if not entries:
        raise InvalidInputError(f"tokens file {path} has no token")
    return entries


def hash_token(token: str) -> str:
    """Return the SHA-256 of a token in hex, as the table keeps it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def check_scopes(scopes: object) -> frozenset[str]:
    """Return scopes that a file names; ValueError for anything that is no list of known ones."""
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("scopes must be a list of texts")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValueError(f"unknown scope {unknown[0]!r}; allowed: {', '.join(SCOPES)}")
    return frozenset(scopes)


def _read_entry(row: Mapping[str, object]) -> Entry:
    at, by = row.get("changed_at", 0.0), row.get("changed_by", "")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not isinstance(by, str):
        raise ValueError("changed_at must be a number and changed_by a text")
    return Entry(str(row["name"]), _check_digest(row["sha256"]), check_scopes(row["scopes"]), float(at), by)


def _check_digest(value: object) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError("sha256 must be 64 lower-case hex digits")
    return value


def _look(path: Path) -> _Seen | None:
    """Return what changes with a file; None while there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
