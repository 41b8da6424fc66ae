"""Write the demo workload: rows to teach, exam rows and separate check rows, five categories, from a seed.

All wordings come from this package; nothing is copied from a data set. It knows no student, teacher or gateway.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from shammah_chassis.errors import PreconditionError

from shammah_gateway.demo import arithmetic, booking, commands, dates, tickets
from shammah_gateway.demo.drafts import Draft

SIZES = {"train": 150, "exam": 200, "check": 100}
"""Rows per category and part; `train` is the part to teach (the system keeps a third of it as dev)."""

NEAR = 0.8
"""Two queries of a category that share this much of their words (Jaccard) are never both in the workload."""

_MOST_TRIES = 10_000  # per row; the grammars need a few
_TOKEN = re.compile(r"[a-z0-9]+|[+\-*/=<>%$]")


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Paths of the four written files (gzip-compressed JSON lines); `teacher` holds the rows of the other three."""

    teach: Path
    exam: Path
    check: Path
    teacher: Path


@dataclass(frozen=True, slots=True)
class Source:
    """One category: its name, its grader, and how a row is worded from a random source and a turn number."""

    category: str
    metric: str
    draw: Callable[[Random, int], Draft]


SOURCES = (
    Source(commands.CATEGORY, commands.METRIC, commands.draw),
    Source(booking.CATEGORY, booking.METRIC, booking.draw),
    Source(tickets.CATEGORY, tickets.METRIC, tickets.draw),
    Source(dates.CATEGORY, dates.METRIC, dates.draw),
    Source(arithmetic.CATEGORY, arithmetic.METRIC, arithmetic.draw),
)

CATEGORIES = tuple(source.category for source in SOURCES)
"""Names of the five, the one that can not be learned last."""


def write_workload(folder: Path, *, seed: int = 7) -> DemoFiles:
    """Write teach, exam, check and teacher files into `folder` (made if needed); the same seed gives the same bytes.

    Rows follow the workload schema: id, source, license, category, query, reference, metadata {family, metric, split,
    text}. Within a file the categories are mixed. Raises OSError when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = make_rows(seed)
    files = DemoFiles(*(folder / f"{name}.jsonl.gz" for name in ("teach", "exam", "check", "teacher")))
    _write(files.teach, parts["train"])
    _write(files.exam, parts["exam"])
    _write(files.check, parts["check"])
    _write(files.teacher, [row for rows in parts.values() for row in rows])
    return files


def make_rows(seed: int) -> dict[str, list[dict[str, Any]]]:
    """All rows by part (`train`, `exam`, `check`), each part shuffled over the categories."""
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in SIZES}
    for source in SOURCES:
        # Strings seed a Random by their SHA-512, the same on every machine and Python version.
        drafts = _draw_distinct(source, Random(f"{seed}/{source.category}"), sum(SIZES.values()))
        start = 0
        for name, size in SIZES.items():
            parts[name] += [_row(source, draft, name) for draft in drafts[start : start + size]]
            start += size
    for name, rows in parts.items():
        Random(f"{seed}/{name}").shuffle(rows)
    return parts


def normalise(text: str) -> list[str]:
    """Words of a text as they count for "the same query": NFKC, lower case, alphanumerics and + - * / = < > % $."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


def _draw_distinct(source: Source, rng: Random, count: int) -> list[Draft]:
    """`count` drafts, no two of which nearly share their words."""
    drafts: list[Draft] = []
    seen: list[frozenset[str]] = []
    for turn in range(count):
        for _ in range(_MOST_TRIES):
            draft = source.draw(rng, turn)
            words = frozenset(normalise(draft.query))
            if all(len(words & other) < NEAR * len(words | other) for other in seen):
                break
        else:
            raise PreconditionError(f"the grammar of {source.category} has too few wordings for {count} rows")
        drafts.append(draft)
        seen.append(words)
    return drafts


def _row(source: Source, draft: Draft, part: str) -> dict[str, Any]:
    digest = hashlib.sha256(draft.query.encode()).hexdigest()
    return {
        "id": f"{source.category}-{digest[:12]}",
        "source": "shammah demo",
        "license": "Apache-2.0",
        "category": source.category,
        "query": draft.query,
        "reference": draft.reference,
        "metadata": {"family": source.category, "metric": source.metric, "split": part, "text": draft.text},
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    # No time stamp and no file name in the header, so that equal rows are equal bytes.
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
