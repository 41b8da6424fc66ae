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


def begin_round(ledger: Ledger, round_id: str, *, position: int, rows: Sequence[str]) -> None:
    """Note that a round starts; durable before anything is computed."""
    ledger.execute(
        "INSERT INTO rounds (id, state, started, position, rows) VALUES (?, 'running', ?, ?, ?)",
        (round_id, time.time(), position, json.dumps(list(rows))),
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


def close_round(ledger: Ledger, round_id: str, *, state: Literal["done", "failed"], error: str = "") -> None:
    """Note the end of a round; a failed one leaves its rows as they were."""
    ledger.execute("UPDATE rounds SET state = ?, ended = ? WHERE id = ?", (state, time.time(), round_id))
    if error:
        ledger.execute("UPDATE rounds SET result = ? WHERE id = ?", (json.dumps({"error": error}), round_id))


def park_rows(ledger: Ledger, error: str) -> int:
    """Take the new rows that the last two rounds failed on, both with this error, out of what is trained.

    They stay in the ledger as part "parked", and what ended the rounds with them; returns how many there are.
    """
    last = last_rounds(ledger, 2)
    if len(last) < 2 or not all(
        entry.state == "failed" and str(entry.result.get("error", "")).startswith(f"{error}:") for entry in last
    ):
        return 0
    both = sorted(set(last[0].rows) & set(last[1].rows))
    parked = 0
    with ledger.transaction():
        for example in both:
            where = "id = ? AND part = 'train' AND trained = 0"
            if ledger.fetch(f"SELECT 1 FROM examples WHERE {where}", (example,)):
                ledger.execute(f"UPDATE examples SET part = 'parked' WHERE {where}", (example,))
                parked += 1
        result = {**last[0].result, "parked": parked}
        ledger.execute("UPDATE rounds SET result = ? WHERE id = ?", (json.dumps(result), last[0].id))
    return parked


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
