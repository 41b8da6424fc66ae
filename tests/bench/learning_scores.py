"""What is read back of an arm: scored rows, accuracy of graded rollouts, and shares at any alpha without a model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_trainer.certify import CategoryEvidence, GradedRow, certify
from shammah_trainer.intervals import interval
from shammah_trainer.offline.rollouts_file import CANDIDATE, GRADED_NAME, read_lines
from shammah_trainer.offline.study import read_study

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """How many rows were answered locally, and how many of these were bad."""

    rows: int
    local: int
    errors: int

    @property
    def share(self) -> float:
        return self.local / self.rows if self.rows else 0.0

    @property
    def error(self) -> float:
        return self.errors / self.local if self.local else 0.0

    @property
    def error_interval(self) -> tuple[float, float]:
        """Clopper-Pearson, 95 %."""
        return interval(self.errors, self.local)


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `scores.jsonl.gz`."""
    with gzip.open(folder / "scores.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_served(folder: Path, *, alpha: float = 0.05) -> list[dict[str, Any]]:
    """Return the rows of an arm, `local` by thresholds that today's `certify` reads off its dev and exam scores.

    An arm is judged once, on the machine that had the cores; the same scores certify anew in a second.
    """
    rows = read_scores(folder)
    thresholds = certify_rows(rows, alpha=alpha)
    return [row | {"local": _is_served(row, thresholds.get(str(row["routed"])))} for row in rows]


def read_goods(folder: Path) -> dict[str, tuple[str, bool]]:
    """Return (family, good) of each graded test row by its workload id."""
    study = read_study(folder / "study.jsonl.gz")
    test = {row.id: row for row in study.test}
    return {
        study.names[line.id]: (test[line.id].category, bool(line.good))
        for line in read_lines(folder / GRADED_NAME)
        if line.generator == CANDIDATE and line.id in test
    }


def count_local(rows: Iterable[Row]) -> Share:
    """Count the rows that the release answers locally."""
    found = list(rows)
    local = [row for row in found if row["local"]]
    return Share(len(found), len(local), sum(not row["good"] for row in local))


def group_by(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """Group rows by one of their fields, in alphabetical order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row[key]), []).append(row)
    return dict(sorted(groups.items()))


def certify_rows(rows: Sequence[Row], *, alpha: float, delta: float = 0.05) -> dict[str, float | None]:
    """Return the threshold of each routed category, certified at `alpha` on the scored dev and exam rows."""
    evidence = {
        name: CategoryEvidence(
            dev=[_graded(row) for row in own if row["part"] == "dev"],
            exam=[_graded(row) for row in own if row["part"] == "exam"],
        )
        for name, own in group_by(rows, "routed").items()
        if name
    }
    return {name: found.threshold for name, found in certify(evidence, alpha=alpha, delta=delta).items()}


def serve_at(rows: Sequence[Row], *, alpha: float, asked: Iterable[Row]) -> Share:
    """Return what would be answered locally of `asked` under thresholds certified at `alpha`."""
    thresholds = certify_rows(rows, alpha=alpha)
    found = list(asked)
    local = [row for row in found if _is_served(row, thresholds.get(str(row["routed"])))]
    return Share(len(found), len(local), sum(not row["good"] for row in local))


def _is_served(row: Row, threshold: float | None) -> bool:
    return threshold is not None and bool(row["eligible"]) and float(row["quality"]) >= threshold


def _graded(row: Row) -> GradedRow:
    return GradedRow(score=row["quality"], good=row["good"], eligible=row["eligible"])
