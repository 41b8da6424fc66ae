"""Changing the table of tokens: add, grant, revoke, remove. Whoever runs it must own the folder.

Each change is one whole new file (0600) under a lock, so that two people at once lose nothing; services that run read
it by themselves (`tokens`). A clear token is returned once, by whoever made it, and is nowhere else but in
`claude.token`. It talks to no service.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shammah_chassis.errors import InvalidInputError, NotFoundError
from shammah_chassis.scopes import GRANTABLE, RESERVED, SCOPES
from shammah_chassis.tokens import Entry, check_scopes, hash_token, read_entries

# What `shammah up` makes for itself; people neither grant to these nor remove them.
DEFAULT_GRANTS: Mapping[str, tuple[str, ...]] = {"owner": SCOPES, "internal": ("serve",)}
# The name under which Claude teaches. Nobody has it until it is granted something.
CLAUDE = "claude"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Changed:
    """An entry after a change, and its clear token if a new one was made ("" else)."""

    entry: Entry
    token: str = ""


class TokenBook:
    """The table in `path` (tokens.json). All methods block, and raise InvalidInputError for a damaged table."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def claude_file(self) -> Path:
        """The file of the clear token that Claude's tools use."""
        return self._path.with_name(f"{CLAUDE}.token")

    def list(self) -> tuple[Entry, ...]:
        """Return all entries; the file does not hold the tokens, only their digests."""
        return read_entries(self._path)

    def add(self, name: str, scopes: Collection[str]) -> Changed:
        """Make a token; raises InvalidInputError for a bad or taken name, and for an unknown scope or none."""
        _check_name(name)
        _check_grant(scopes)
        with self._change() as entries:
            if name in entries:
                raise InvalidInputError(f"there is a token {name!r} already; grant it more, or remove it first")
            return self._make(entries, name, frozenset(scopes))

    def grant(self, name: str, scopes: Collection[str]) -> Changed:
        """Give a token more scopes. The first grant to "claude" makes its token.

        Raises:
            NotFoundError: no such token. InvalidInputError: an unknown scope, or a token of `shammah up`.
        """
        _check_name(name)
        _check_grant(scopes)
        with self._change() as entries:
            if name == CLAUDE and not self._holds_claude(entries):
                had = entries[CLAUDE].scopes if CLAUDE in entries else frozenset()
                return self._make(entries, name, had | frozenset(scopes))
            found = _find(entries, name)
            return self._set(entries, replace(found, scopes=found.scopes | frozenset(scopes)))

    def revoke(self, name: str, scopes: Collection[str]) -> Changed:
        """Take scopes from a token, all of them where none is named; raises as `grant`."""
        _check_name(name)
        if scopes:
            _check_grant(scopes)
        with self._change() as entries:
            found = _find(entries, name)
            left = found.scopes - frozenset(scopes) if scopes else frozenset()
            return self._set(entries, replace(found, scopes=left))

    def remove(self, name: str) -> Entry:
        """Delete a token; raises as `grant`."""
        _check_name(name)
        with self._change() as entries:
            found = _find(entries, name)
            del entries[name]
        if name == CLAUDE:
            self.claude_file.unlink(missing_ok=True)
        return found

    def renew(self, name: str, scopes: Collection[str]) -> str:
        """Make a new token for one of `shammah up`'s own names and return it; the other entries stay."""
        with self._change() as entries:
            return self._make(entries, name, frozenset(scopes)).token

    def _make(self, entries: dict[str, Entry], name: str, scopes: frozenset[str]) -> Changed:
        token = secrets.token_urlsafe(32)
        if name == CLAUDE:
            # Before the table: a kill in between leaves a token that nobody knows, which the next grant mends.
            write_private(self.claude_file, token + "\n")
        return replace(self._set(entries, Entry(name, hash_token(token), scopes)), token=token)

    def _set(self, entries: dict[str, Entry], entry: Entry) -> Changed:
        entries[entry.name] = replace(entry, changed_at=time.time(), changed_by=_who())
        return Changed(entries[entry.name])

    def _holds_claude(self, entries: Mapping[str, Entry]) -> bool:
        """Say whether the file of Claude's token holds the one that the table knows."""
        try:
            token = self.claude_file.read_text("utf-8").strip()
        except OSError:
            return False
        return CLAUDE in entries and hash_token(token) == entries[CLAUDE].sha256

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Entry]]:
        """Yield the entries by name to be changed, and write them if nothing was raised."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = read_entries(self._path) if self._path.exists() else ()
            entries = {entry.name: entry for entry in before}
            yield entries
            _write(self._path, entries)
        finally:
            os.close(lock)


def write_tokens(path: Path, grants: Mapping[str, Collection[str]] = DEFAULT_GRANTS) -> dict[str, str]:
    """Make a new token for each name, write the table (mode 0600) and return name -> clear token.

    The clear tokens are nowhere else. An existing table is replaced as a whole.

    Raises:
        InvalidInputError: an unknown scope.
    """
    tokens = {name: secrets.token_urlsafe(32) for name in grants}
    try:
        entries = {name: Entry(name, hash_token(tokens[name]), check_scopes(list(grants[name]))) for name in grants}
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    _write(path, entries)
    return tokens


def write_private(path: Path, text: str) -> None:
    """Write a text file that only its owner can read (0600), at once or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    aside.replace(path)


def _write(path: Path, entries: Mapping[str, Entry]) -> None:
    rows = [
        {
            "name": entry.name,
            "sha256": entry.sha256,
            "scopes": sorted(entry.scopes),
            **({"changed_at": entry.changed_at, "changed_by": entry.changed_by} if entry.changed_at else {}),
        }
        for entry in entries.values()
    ]
    write_private(path, json.dumps({"tokens": rows}, indent=1) + "\n")


def _find(entries: Mapping[str, Entry], name: str) -> Entry:
    if name not in entries:
        raise NotFoundError(
            f"there is no token {name!r}; known: {', '.join(entries) or 'none'}. "
            f"Make it: shammah tokens add {name} --scopes ask"
        )
    return entries[name]


def _check_name(name: str) -> None:
    if name in RESERVED or name in DEFAULT_GRANTS:
        raise InvalidInputError(f"the token {name!r} is Shammah's own and is not changed by hand")
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"the name {name!r} is not allowed: 1 to 64 of a-z 0-9 . _ -, a letter or digit first")


def _check_grant(scopes: Collection[str]) -> None:
    unknown = sorted(set(scopes) - set(GRANTABLE))
    if unknown or not scopes:
        wrong = f"unknown scope {unknown[0]!r}" if unknown else "no scope is named"
        raise InvalidInputError(f"{wrong}; allowed: {', '.join(GRANTABLE)}")


def _who() -> str:
    """Return the account that makes the change, for the audit log; "" where the machine does not say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
