"""From workload files to a ledger in a folder, by the same rules as the example log, and to the study that it holds.

It knows files and the ledger, no models.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import MAX_ENVELOPE, Example
from shammah_chassis.workload import WorkloadRow, read_workload

from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.offline.study import Study, make_row
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.round_plan import PlanLimits, make_plan

LEDGER_NAME = "ledger.sqlite"
_EVERYTHING = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Workload files: to learn from, the user's own exam, and those that only measure."""

    train: tuple[Path, ...]
    exam: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How the rows are cut; 0 means no limit.

    `by`: what a category is. `family_rows`: rows of one train file, drawn at random. `exam_rows`: rows of a category
    that are taken out of the train files as the user's own exam. `train_rows`: train rows in all, drawn evenly over the
    categories; fewer are always among more. `judged_rows`: dev rows, and exam rows, of a category. `teach_all`: what
    hashing made dev or exam trains too; nothing can be certified then, only accuracy measured.
    """

    by: Literal["family", "category"] = "family"
    leave_out: tuple[str, ...] = ()
    family_rows: int = 0
    exam_rows: int = 0
    train_rows: int = 0
    judged_rows: int = 1000
    test_rows: int = 0
    teach_all: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study, what became of its rows at ingestion, and the lines that could not be read."""

    study: Study
    outcomes: Mapping[str, int]
    malformed: tuple[str, ...]


def prepare(files: Files, cut: Cut, folder: Path, *, ingested: Path | None = None) -> Prepared:
    """Fill a new ledger in `folder` and plan one round on it.

    `ingested`: a ledger that `keep_ingested` made of the same files with the same draws; it is copied, which is quick.

    Raises:
        InvalidInputError: no train row is left, or the folder has a ledger already.
        NotFoundError: a file is missing.
    """
    if (folder / LEDGER_NAME).exists():
        raise InvalidInputError(f"{folder} has a ledger already; a study starts in a new folder")
    malformed: list[str] = []
    train = [row for path in files.train for row in _read(path, cut, malformed, most=cut.family_rows)]
    exam = [row for path in files.exam for row in _read(path, cut, malformed)]
    test = [row for path in files.test for row in _read(path, replace(cut, leave_out=()), malformed, cut.test_rows)]
    drawn, train = _split_exam(train, cut)
    exam += drawn
    if ingested is not None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ingested, folder / LEDGER_NAME)
    ledger = Ledger(folder / LEDGER_NAME)
    try:
        given = [replace(row.example, part_hint="exam") for row in exam]
        outcomes = {} if ingested is not None else ingest_all(ledger, [*given, *(row.example for row in train)])
        if cut.teach_all:
            ledger.execute("UPDATE examples SET part = 'train' WHERE part IN ('dev', 'exam') AND given = 0")
        if cut.train_rows:
            _thin(ledger, cut)
        limits = PlanLimits(fresh_rows=_EVERYTHING, retried_rows=1, judged_rows=cut.judged_rows or _EVERYTHING)
        plan = make_plan(ledger, champion_position=0, limits=limits, seed=cut.seed)
    finally:
        ledger.close()
    if not plan.new:
        raise InvalidInputError("no train row is left: every file is empty, left out or refused")
    study = Study(
        plan=plan,
        test=tuple({row.example.id: make_row(row.example, part="test") for row in test}.values()),
        names={row.example.id: row.id for row in (*train, *exam, *test)},
        options=_describe(files, cut),
    )
    return Prepared(study, outcomes, tuple(malformed))


def keep_ingested(files: Files, cut: Cut, path: Path) -> None:
    """Write the ledger that `prepare` makes of the same files, before anything is thinned, to be used again."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        prepare(files, replace(cut, train_rows=0, teach_all=False), Path(folder))
        (Path(folder) / LEDGER_NAME).replace(path)


def fill_ledger(study: Study, path: Path) -> None:
    """Write the ledger of a study that travelled without it: its rows and parts, as they were cut."""
    ledger = Ledger(path)
    try:
        with ledger.transaction():
            for part in ("train", "dev", "exam"):
                for row in study.rows(part):
                    ledger.insert(
                        row.example,
                        sequence=row.sequence,
                        part=part,
                        cluster=row.cluster,
                        given=row.given,
                        evidence=part != "train",
                    )
            ledger.write_meta("sequence", study.plan.position)
    finally:
        ledger.close()


def ingest_all(ledger: Ledger, examples: Sequence[Example]) -> dict[str, int]:
    """Store examples as if they had come through the log, in order; return how many had which outcome."""
    ingest = Ingest(ledger, TrainingPolicy())
    counts: dict[str, int] = {}
    for sequence, start in enumerate(range(0, len(examples), MAX_ENVELOPE), start=1):
        taken = ingest.take_examples(sequence, examples[start : start + MAX_ENVELOPE])
        for outcome, count in taken.counts.items():
            counts[outcome] = counts.get(outcome, 0) + count
    return counts


def _read(path: Path, cut: Cut, malformed: list[str], most: int = 0) -> list[WorkloadRow]:
    found = read_workload(path, category_from=cut.by)
    malformed += found.errors
    rows = [row for row in found.rows if row.family not in cut.leave_out and row.example.category not in cut.leave_out]
    if most and len(rows) > most:
        kept = sorted(random.Random(cut.seed).sample(range(len(rows)), most))
        rows = [rows[index] for index in kept]
    return rows


def _split_exam(rows: list[WorkloadRow], cut: Cut) -> tuple[list[WorkloadRow], list[WorkloadRow]]:
    """Draw the user's exam of each category; return it and the rest. At most a third of a category is drawn."""
    if not cut.exam_rows:
        return [], rows
    by_category: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_category.setdefault(row.example.category, []).append(index)
    chosen: set[int] = set()
    for name in sorted(by_category):
        own = by_category[name]
        chosen.update(random.Random(f"{cut.seed}:{name}").sample(own, min(cut.exam_rows, len(own) // 3)))
    return (
        [row for index, row in enumerate(rows) if index in chosen],
        [row for index, row in enumerate(rows) if index not in chosen],
    )


def _thin(ledger: Ledger, cut: Cut) -> None:
    """Leave only `train_rows` train rows in the ledger, as if nobody had answered the others yet."""
    pools: dict[str, list[LedgerRow]] = {}
    for row in ledger.rows("part = 'train'"):
        pools.setdefault(row.category, []).append(row)
    queue: list[LedgerRow] = []
    for name in sorted(pools):
        random.Random(f"{cut.seed}:{name}").shuffle(pools[name])
    while any(pools.values()):
        queue += [pools[name].pop() for name in sorted(pools) if pools[name]]
    with ledger.transaction():
        for row in queue[cut.train_rows :]:
            ledger.execute("DELETE FROM examples WHERE id = ?", (row.id,))


def _describe(files: Files, cut: Cut) -> dict[str, Any]:
    names = {kind: [path.name for path in paths] for kind, paths in asdict(files).items()}
    return {"files": names, **asdict(cut), "leave_out": list(cut.leave_out)}
