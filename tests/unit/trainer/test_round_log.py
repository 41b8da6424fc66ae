"""Rounds in the ledger: what failed twice the same way is parked; what was cleared is closed."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import UnavailableError
from shammah_trainer.forget import erase_from_ledger
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.round_log import (
    Parked,
    begin_round,
    close_round,
    last_rounds,
    mark_published,
    open_rounds,
    park_rows,
    read_parked,
)
from shammah_trainer.round_plan import count_fresh
from shammah_trainer.runner import Runner
from support.trainer import make_switch_rows


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger.sqlite")
    Ingest(made, TrainingPolicy()).take_examples(1, make_switch_rows(12, part_hint="train"))
    return made


def fail(ledger: Ledger, name: str, rows: list[LedgerRow], error: str, champion: str = "R0") -> None:
    begin_round(ledger, name, position=1, rows=[row.id for row in rows], champion=champion)
    close_round(ledger, name, state="failed", error=error)


def test_rows_that_two_rounds_in_a_row_diverged_on_are_parked_and_later_ones_are_not(ledger: Ledger) -> None:
    rows = list(ledger.rows("part = 'train'"))
    fail(ledger, "A", rows[:8], "DivergedError: the loss is nan")
    assert park_rows(ledger, "DivergedError") == 0
    fail(ledger, "B", rows, "DivergedError: the loss is nan")
    assert park_rows(ledger, "DivergedError") == 8
    assert {row.id for row in ledger.rows("part = 'parked'")} == {row.id for row in rows[:8]}
    assert count_fresh(ledger, champion_position=0) == 4
    assert last_rounds(ledger, 1)[0].result == {"error": "DivergedError: the loss is nan", "parked": 8, "parent": "R0"}
    assert read_parked(ledger) == Parked(8, "DivergedError: the loss is nan")
    # What was forgotten since is parked no more.
    erase_from_ledger(ledger, rows[0].id, 1)
    assert read_parked(ledger).rows == 7


def test_rounds_of_two_champions_park_nothing(ledger: Ledger) -> None:
    rows = list(ledger.rows("part = 'train'"))
    fail(ledger, "A", rows, "DivergedError: nan")
    fail(ledger, "B", rows, "DivergedError: nan", champion="R1")
    assert park_rows(ledger, "DivergedError") == 0
    fail(ledger, "C", rows, "DivergedError: nan", champion="R1")
    assert park_rows(ledger, "DivergedError") == 12


def test_a_reason_keeps_characters_that_a_file_can_not_hold(ledger: Ledger) -> None:
    fail(ledger, "A", [], 'OSError: no file "\udce4"')
    assert last_rounds(ledger, 1)[0].result["error"] == 'OSError: no file "\udce4"'


@pytest.mark.parametrize("errors", [("StorageFullError: full", "DivergedError: nan"), ("DivergedError: nan", "x: y")])
def test_other_failures_park_nothing(ledger: Ledger, errors: tuple[str, str]) -> None:
    rows = list(ledger.rows("part = 'train'"))
    for name, error in zip("AB", errors, strict=True):
        fail(ledger, name, rows, error)
    assert park_rows(ledger, "DivergedError") == 0
    assert count_fresh(ledger, champion_position=0) == 12


def test_what_was_learned_before_is_not_parked(ledger: Ledger) -> None:
    rows = list(ledger.rows("part = 'train'"))
    begin_round(ledger, "0", position=1, rows=[row.id for row in rows[:5]])
    mark_published(ledger, "0")
    close_round(ledger, "0", state="done")
    for name in "AB":
        fail(ledger, name, rows, "DivergedError: nan")
    assert park_rows(ledger, "DivergedError") == 7


def test_a_published_round_whose_release_was_cleared_is_closed(ledger: Ledger, tmp_path: Path) -> None:
    begin_round(ledger, "01ARZ3NDEKTSV4RRFFQ69G5FAV", position=7, rows=[])
    mark_published(ledger, "01ARZ3NDEKTSV4RRFFQ69G5FAV", {})
    parts = SimpleNamespace(ledger=ledger, store=DirectoryStore(tmp_path / "store"), work=tmp_path / "work")
    asyncio.run(Runner(cast(Any, parts)).recover())
    assert open_rounds(ledger) == []


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("disk image is malformed")]
)
def test_a_disk_that_can_not_be_read_has_a_name(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: sqlite3.Error
) -> None:
    class Broken:
        in_transaction = False

        def execute(self, *_: object) -> None:
            raise error

    monkeypatch.setattr(ledger, "_db", Broken())
    with pytest.raises(UnavailableError, match=str(error)):
        ledger.fetch("SELECT 1")
    with pytest.raises(UnavailableError, match=str(error)), ledger.transaction():
        pass
