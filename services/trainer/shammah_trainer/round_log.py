"""Rounds in the ledger: begun, published, done or failed; what makes a crash repeatable.

A round is `running` while it computes, `published` once its release is in the store and its rows are marked, `done`
once it was proposed and acknowledged. It knows ids and positions, no models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shammah_trainer.ledger import Ledger

INTERRUPTED = "interrupted"
"""The code of a round that nothing in it ended: the process did."""
RoundState = Literal["running", "published", "done", "failed"]


@dataclass(frozen=True, slots=True)
class RoundEntry:
    """One round. `rows` are the ids of the train rows it learns from, `result` is JSON for people."""

    id: str
    state: RoundState
    started: float
    ended: float
    position: int
    rows: tuple[str, ...]
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parked:
    """How many rows are left out of training, and what ended the rounds that last parked some ("" for none)."""

    rows: int
    reason: str


def begin_round(ledger: Ledger, round_id: str, *, position: int, rows: Sequence[str], champion: str = "") -> None:
    """Note that a round starts from the release `champion`; durable before anything is computed."""
    ledger.execute(
        "INSERT INTO rounds (id, state, started, position, rows, result) VALUES (?, 'running', ?, ?, ?, ?)",
        (round_id, time.time(), position, json.dumps(list(rows)), json.dumps({"parent": champion})),
    )


def mark_published(ledger: Ledger, round_id: str, result: Mapping[str, Any] | None = None) -> None:
    """Note that the release is durable: its rows count as learned from once more. Repeating changes nothing."""
    with ledger.transaction():
        found = ledger.fetch("SELECT rows FROM rounds WHERE id = ? AND state = 'running'", (round_id,))
        if not found:
            return
        for example in json.loads(found[0][0]):
            ledger.execute("UPDATE examples SET trained = trained + 1 WHERE id = ?", (example,))
        ledger.execute(
            "UPDATE rounds SET state = 'published', ended = ?, result = ? WHERE id = ?",
            (time.time(), json.dumps(dict(result or {})), round_id),
        )


def close_round(
    ledger: Ledger, round_id: str, *, state: Literal["done", "failed"], error: str = "", code: str = ""
) -> None:
    """Note the end of a round; a failed one leaves its rows as they were. `code` is the stable word for `error`."""
    ledger.execute("UPDATE rounds SET state = ?, ended = ? WHERE id = ?", (state, time.time(), round_id))
    if error:
        sql = "UPDATE rounds SET result = json_set(result, '$.error', json(?)) WHERE id = ?"
        ledger.execute(sql, (json.dumps(error), round_id))
    if code:
        ledger.execute("UPDATE rounds SET result = json_set(result, '$.code', ?) WHERE id = ?", (code, round_id))


def park_rows(ledger: Ledger, error: str) -> int:
    """Take the new rows that the last two rounds failed on out of what is trained; returns how many there are.

    Only where both began from the same champion and ended with this error. The rows stay in the ledger as part
    "parked"; `read_parked` says why.
    """
    last = last_rounds(ledger, 2)
    if len(last) < 2 or last[0].result.get("parent") != last[1].result.get("parent"):
        return 0
    if not all(entry.state == "failed" and _error_of(entry).startswith(f"{error}:") for entry in last):
        return 0
    parked = 0
    with ledger.transaction():
        for example in sorted(set(last[0].rows) & set(last[1].rows)):
            where = "id = ? AND part = 'train' AND trained = 0"
            if ledger.fetch(f"SELECT 1 FROM examples WHERE {where}", (example,)):
                ledger.execute(f"UPDATE examples SET part = 'parked' WHERE {where}", (example,))
                parked += 1
        result = {**last[0].result, "parked": parked}
        ledger.execute("UPDATE rounds SET result = ? WHERE id = ?", (json.dumps(result), last[0].id))
    return parked


def read_parked(ledger: Ledger) -> Parked:
    """Return how many rows are parked now, and why the last of them are."""
    rows = int(ledger.fetch("SELECT COUNT(*) FROM examples WHERE part = 'parked'")[0][0])
    if not rows:
        return Parked(0, "")
    found = _select(ledger, "WHERE json_extract(result, '$.parked') > 0 ORDER BY started DESC LIMIT 1")
    return Parked(rows, _error_of(found[0]) if found else "")


def open_rounds(ledger: Ledger) -> list[RoundEntry]:
    """Return the rounds that a crash left running or published, oldest first."""
    return _select(ledger, "WHERE state IN ('running', 'published') ORDER BY started")


def last_rounds(ledger: Ledger, count: int) -> list[RoundEntry]:
    """Return the newest rounds, newest first."""
    return _select(ledger, f"ORDER BY started DESC LIMIT {int(count)}")


def durable_position(ledger: Ledger) -> int:
    """Return the last log position whose round is durable (its release or its verdict "held" is in the store)."""
    rows = ledger.fetch("SELECT COALESCE(MAX(position), 0) FROM rounds WHERE state IN ('published', 'done')")
    return int(rows[0][0])


def _error_of(entry: RoundEntry) -> str:
    return str(entry.result.get("error", ""))


def _select(ledger: Ledger, rest: str) -> list[RoundEntry]:
    found = ledger.fetch(f"SELECT id, state, started, ended, position, rows, result FROM rounds {rest}")
    return [
        RoundEntry(
            id=row[0],
            state=row[1],
            started=row[2],
            ended=row[3],
            position=row[4],
            rows=tuple(json.loads(row[5])),
            result=json.loads(row[6]),
        )
        for row in found
    ]
