"""The last round of an earlier process: what ended it is what was said then."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import StorageFullError
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.problems import DivergedError, StoppedError
from shammah_trainer.readings import load_last_round
from shammah_trainer.round_log import Parked, begin_round, close_round, read_parked
from shammah_trainer.runner import Runner
from support.trainer import make_switch_rows

ROUND = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
AGAIN = "it will be repeated"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger.sqlite")
    begin_round(made, ROUND, position=1, rows=[], champion="R0")
    return made


def make_runner(ledger: Ledger, folder: Path) -> Runner:
    parts = SimpleNamespace(ledger=ledger, store=DirectoryStore(folder / "store"), work=folder / "work")
    return Runner(cast(Any, parts))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StorageFullError("the disk is full: of logs"), ("failed", "storage_full", "the disk is full: of logs")),
        (DivergedError("the loss is nan"), ("failed", "training_diverged", "the loss is nan")),
        (StoppedError("stopped by its caller"), ("cancelled", "training_stopped", "stopped by its caller")),
        (sqlite3.ProgrammingError("unforeseen"), ("failed", "internal", "ProgrammingError: unforeseen")),
        (asyncio.CancelledError(), ("failed", "interrupted", AGAIN)),
    ],
)
def test_a_failed_round_says_what_ended_it(
    ledger: Ledger, tmp_path: Path, error: BaseException, told: tuple[str, str, str]
) -> None:
    asyncio.run(make_runner(ledger, tmp_path)._give_up(ROUND, error))
    job = load_last_round(ledger)
    assert job is not None and job.ended.is_set()
    assert (job.id, job.state, job.error_code) == (ROUND, *told[:2])
    assert job.error_message.endswith(told[2]) and not job.error_message.startswith("DivergedError")


def test_a_round_that_a_crash_ended_was_interrupted(ledger: Ledger, tmp_path: Path) -> None:
    asyncio.run(make_runner(ledger, tmp_path).recover())
    job = load_last_round(ledger)
    assert job is not None and (job.state, job.error_code) == ("failed", "interrupted")
    assert AGAIN in job.error_message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("DivergedError: the loss is nan", "internal"),
        ("interrupted; it will be repeated", "interrupted"),
        ("", "interrupted"),
    ],
)
def test_a_ledger_from_before_there_were_codes_is_read(ledger: Ledger, text: str, code: str) -> None:
    close_round(ledger, ROUND, state="failed", error=text)
    job = load_last_round(ledger)
    assert job is not None and (job.state, job.error_code, job.error_message) == ("failed", code, text or "interrupted")


def test_rounds_with_a_code_are_parked_as_those_without(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "rows.sqlite")
    rows = make_switch_rows(12, part_hint="train")
    Ingest(ledger, TrainingPolicy()).take_examples(1, rows)
    names = [row.id for row in ledger.rows("part = 'train'")]
    for name in ("A", "B"):
        begin_round(ledger, name, position=1, rows=names, champion="R0")
        asyncio.run(make_runner(ledger, tmp_path)._give_up(name, DivergedError("nan")))
    assert read_parked(ledger) == Parked(len(names), "DivergedError: nan")
    job = load_last_round(ledger)
    assert job is not None and (job.id, job.error_code, job.error_message) == ("B", "training_diverged", "nan")
