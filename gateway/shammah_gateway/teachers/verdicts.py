"""Verdicts of a judge, kept so that none is paid twice: by the digest of what was judged and by whom.

A file of JSON lines, the newest at the end, bounded by rows. It knows no teacher. All methods block for one small
write at most; a disk that fails costs the memory of a verdict, not the verdict.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import IO

from shammah_chassis.examples import canonical_json

from shammah_gateway.teachers.ports import Judgement

# A line is under 600 bytes: some 6 MB in memory and, before it is written anew, twice that on disk.
MAX_VERDICTS = 10_000
_log = logging.getLogger(__name__)


class VerdictBook:
    """At most `limit` verdicts, the oldest go first; `path` None keeps them in memory only. Blocking when made."""

    def __init__(self, path: Path | None, *, limit: int = MAX_VERDICTS) -> None:
        self._path = path
        self._limit = limit
        self._rows: dict[str, Judgement] = {}
        self._lines = 0
        if path is not None and path.exists():
            self._load(path)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, digest: str) -> Judgement | None:
        """Return what was judged before; it costs nothing, so its usage is empty."""
        return self._rows.get(digest)

    def keep(self, digest: str, verdict: Judgement) -> None:
        """Keep a verdict."""
        self._rows.pop(digest, None)
        self._rows[digest] = Judgement(verdict.agrees, verdict.reason, verdict.model)
        while len(self._rows) > self._limit:
            del self._rows[next(iter(self._rows))]
        if self._path is None:
            return
        try:
            self._write(self._path, digest)
        except OSError as error:
            _log.warning("a verdict can't be kept in %s: %s", self._path, error)

    def _write(self, path: Path, digest: str) -> None:
        if self._lines < 2 * self._limit:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _open(path, os.O_APPEND) as file:
                file.write(_render(digest, self._rows[digest]))
            self._lines += 1
            return
        aside = path.with_suffix(".new")
        with _open(aside, os.O_TRUNC) as file:
            file.writelines(_render(name, row) for name, row in self._rows.items())
        os.replace(aside, path)
        self._lines = len(self._rows)

    def _load(self, path: Path) -> None:
        whole = True
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                whole = line.endswith("\n")
                self._lines += 1
                try:
                    row = json.loads(line)
                    verdict = Judgement(bool(row["agrees"]), str(row["reason"]), str(row["model"]))
                    digest = str(row["digest"])
                except (ValueError, KeyError, TypeError):
                    # A line that a crash cut in half.
                    continue
                self._rows.pop(digest, None)
                self._rows[digest] = verdict
        while len(self._rows) > self._limit:
            del self._rows[next(iter(self._rows))]
        if not whole:
            with _open(path, os.O_APPEND) as file:
                file.write("\n")


def digest_case(query: str, reference: str, response: str, teacher: str) -> str:
    """Return SHA-256 (hex) of what is judged and of who judges it (teacher, models and wording)."""
    return hashlib.sha256(canonical_json([query, reference, response, teacher]).encode()).hexdigest()


def _open(path: Path, how: int) -> IO[str]:
    """Open a file for writing that only we can read: reasons may quote what users said."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "w", encoding="utf-8")


def _render(digest: str, verdict: Judgement) -> str:
    row = {"digest": digest, "agrees": verdict.agrees, "reason": verdict.reason, "model": verdict.model}
    return json.dumps(row, ensure_ascii=False) + "\n"
