"""Reading of workload files: JSON lines, plain or gzip, one query with its reference a line.

The schema is that of the public data (`id source license category query reference metadata`). It does not know what the
examples are used for; a bad line is reported and the rest goes on.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shammah_chassis.errors import InvalidInputError, NotFoundError
from shammah_chassis.examples import Example, Message, Provenance
from shammah_chassis.fields import read_text, read_texts


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """One line: its id, its family, and the example; `reference` is what a response is graded against."""

    id: str
    family: str
    example: Example
    reference: str


@dataclass(frozen=True, slots=True)
class WorkloadFile:
    """What a file held: the good rows in order, and one text for each bad line (file, line, what was wrong)."""

    rows: tuple[WorkloadRow, ...]
    errors: tuple[str, ...]


def read_workload(path: Path, *, category_from: Literal["category", "family"] = "category") -> WorkloadFile:
    """Read a workload file; `category_from` "family" makes each family its own category.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it is a folder.
    """
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; a workload is a .jsonl or .jsonl.gz file")
    if not path.exists():
        raise NotFoundError(f"there is no workload file {path}")
    rows: list[WorkloadRow] = []
    errors: list[str] = []
    seen: set[str] = set()
    for number, line in _number_lines(path, errors):
        try:
            row = _read_row(line, category_from)
            if row.id in seen:
                raise InvalidInputError(f"id {row.id!r} was on an earlier line")
        except InvalidInputError as error:
            errors.append(f"{path}:{number}: {error.message}")
        else:
            seen.add(row.id)
            rows.append(row)
    return WorkloadFile(tuple(rows), tuple(errors))


def _number_lines(path: Path, errors: list[str]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, from 1; a damaged archive ends the file with an error."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        errors.append(f"{path}:{number + 1}: damaged archive, the rest is lost: {error}")


def _read_row(line: bytes, category_from: str) -> WorkloadRow:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise InvalidInputError("must be a JSON object")
    for name in ("id", "source", "license", "category", "query", "reference", "metadata"):
        if name not in row:
            raise InvalidInputError(f"field {name!r} is missing")
    metadata = row["metadata"]
    if not isinstance(metadata, dict):
        raise InvalidInputError("field 'metadata' must be an object")
    for name in ("family", "metric"):
        if name not in metadata:
            raise InvalidInputError(f"field 'metadata.{name}' is missing")
    return WorkloadRow(
        id=read_text(row, "id"),
        family=read_text(metadata, "family"),
        example=_make_example(row, metadata, category_from),
        reference=read_text(row, "reference"),
    )


def _make_example(row: dict[str, Any], metadata: dict[str, Any], category_from: str) -> Example:
    accepted = metadata.get("accepted")
    if accepted is not None and not isinstance(accepted, dict):
        raise InvalidInputError("field 'metadata.accepted' must be an object")
    extra = {"answers": [], "tests": "", "prompt": "", "entry_point": "", **metadata}
    if "teacher_answer" not in extra:
        extra["teacher_answer"] = row["reference"]
    return Example(
        query=(Message("user", read_text(row, "query")),),
        response=read_text(extra, "teacher_answer"),
        reference=read_text(row, "reference"),
        category=read_text(*((extra, "family") if category_from == "family" else (row, "category"))),
        grader=read_text(extra, "metric"),
        answers=read_texts(extra, "answers"),
        tests=read_text(extra, "tests"),
        prompt=read_text(extra, "prompt"),
        entry_point=read_text(extra, "entry_point"),
        accepted=accepted,
        provenance=Provenance(origin="dataset", licence=read_text(row, "license"), source=read_text(row, "source")),
    )
