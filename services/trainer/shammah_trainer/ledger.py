"""The trainer's ledger: each example once with its part and cluster; rollouts, rounds, positions. One SQLite file.

It is a fold of the example log and may be lost: reading the log again rebuilds it. It knows rows, not how a part is
chosen (`parts`) nor what a round does. Safe for use by several threads: one connection behind one lock.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.errors import ArtifactError, ShammahError, StorageFullError, UnavailableError
from shammah_chassis.examples import Example

_SCHEMA = """
CREATE TABLE IF NOT EXISTS examples (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, sequence INTEGER NOT NULL, part TEXT NOT NULL,
  category TEXT NOT NULL, cluster TEXT NOT NULL, given INTEGER NOT NULL, evidence INTEGER NOT NULL,
  weight REAL NOT NULL, origin TEXT NOT NULL, trained INTEGER NOT NULL DEFAULT 0, json TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS examples_by_part ON examples (part, sequence);
CREATE INDEX IF NOT EXISTS examples_by_category ON examples (category, part);
CREATE INDEX IF NOT EXISTS examples_by_cluster ON examples (cluster);
CREATE TABLE IF NOT EXISTS clusters (cluster TEXT PRIMARY KEY, part TEXT NOT NULL, given INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS queries (number INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS sources (
  example TEXT NOT NULL, sequence INTEGER NOT NULL, request TEXT NOT NULL, PRIMARY KEY (example, sequence, request));
CREATE INDEX IF NOT EXISTS sources_by_request ON sources (request);
CREATE TABLE IF NOT EXISTS refused (id TEXT PRIMARY KEY, sequence INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rollouts (
  generator TEXT NOT NULL, example TEXT NOT NULL, max_tokens INTEGER NOT NULL, text TEXT NOT NULL,
  reason TEXT NOT NULL, statistics TEXT NOT NULL, good INTEGER, detail TEXT NOT NULL,
  PRIMARY KEY (generator, example, max_tokens));
CREATE TABLE IF NOT EXISTS rounds (
  id TEXT PRIMARY KEY, state TEXT NOT NULL, started REAL NOT NULL, ended REAL NOT NULL DEFAULT 0,
  position INTEGER NOT NULL, rows TEXT NOT NULL, result TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# A ledger from before there were sources knows the first place of each row.
_FILL_SOURCES = (
    "INSERT INTO sources SELECT id, sequence, '' FROM examples WHERE NOT EXISTS (SELECT 1 FROM sources LIMIT 1)"
)
_COLUMNS = "id, sequence, part, category, cluster, given, weight, trained, json"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One stored example with what is known of it; `trained` counts the finished rounds that learned from it."""

    id: str
    sequence: int
    part: str
    category: str
    cluster: str
    given: bool
    weight: float
    trained: int
    example: Example


class Ledger:
    """The file; open it once per process."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`; ArtifactError when it is not a ledger."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # What is forgotten is overwritten, not only unlinked.
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)
            self._db.execute(_FILL_SOURCES)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ArtifactError(f"{path} is not a ledger: {error}; remove it and it is rebuilt from the log") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and durable at the end.

        Raises:
            StorageFullError: the disk is full. UnavailableError: it can't be written for another reason.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise _name_error(error) from error
                raise

    def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run one statement (inside `transaction` for more than one); raises as `transaction`."""
        with self._lock:
            try:
                self._db.execute(sql, values)
            except sqlite3.Error as error:
                raise _name_error(error) from error

    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query; raises as `transaction`."""
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise _name_error(error) from error

    @property
    def changes(self) -> int:
        """How many rows of any table were written since the file was opened, those of a failed transaction included."""
        return self._db.total_changes

    def read_meta(self, name: str, default: int = 0) -> int:
        """Return a whole number kept under `name`."""
        rows = self.fetch("SELECT value FROM meta WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else default

    def write_meta(self, name: str, value: int) -> None:
        """Keep a whole number under `name`."""
        self.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, str(value)),
        )

    def has(self, example_id: str) -> bool:
        """Say whether the example is in the ledger."""
        return bool(self.fetch("SELECT 1 FROM examples WHERE id = ?", (example_id,)))

    def insert(self, example: Example, *, sequence: int, part: str, cluster: str, given: bool, evidence: bool) -> None:
        """Store one example; a known id is left as it is."""
        text = json.dumps(example.to_json(), ensure_ascii=False)
        self.execute(
            "INSERT OR IGNORE INTO examples (id, sequence, part, category, cluster, given, evidence, weight, origin, "
            "json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(example.id, sequence, part, example.category, cluster, int(given), int(evidence)),
                *(example.weight, example.provenance.origin, text),
            ),
        )

    def rows(self, where: str, values: Sequence[Any] = ()) -> list[LedgerRow]:
        """Return the examples that a WHERE clause selects, in order of arrival."""
        found = self.fetch(f"SELECT {_COLUMNS} FROM examples WHERE {where} ORDER BY number", values)
        return [_read_row(row) for row in found]

    def count_rows(self, *, after: int) -> dict[str, dict[str, int]]:
        """Return per category the rows of each part, and `new_train`: train rows beyond log position `after`."""
        counts: dict[str, dict[str, int]] = {}
        sql = "SELECT category, part, COUNT(*), SUM(sequence > ?) FROM examples GROUP BY category, part"
        for category, part, rows, new in self.fetch(sql, (after,)):
            none = dict.fromkeys(("train", "dev", "exam", "judge", "parked", "new_train"), 0)
            entry = counts.setdefault(category, none)
            entry[part] = rows
            if part == "train":
                entry["new_train"] = new
        return counts


def _name_error(error: sqlite3.Error) -> ShammahError:
    kind = StorageFullError if "full" in str(error) else UnavailableError
    return kind(f"the ledger can't be read or written: {error}")


def _read_row(row: tuple[Any, ...]) -> LedgerRow:
    name, sequence, part, category, cluster, given, weight, trained, text = row
    return LedgerRow(
        id=name,
        sequence=sequence,
        part=part,
        category=category,
        cluster=cluster,
        given=bool(given),
        weight=weight,
        trained=trained,
        example=Example.from_json(json.loads(text)),
    )
