"""Rollouts of a study by the serving engine, into a file; grading them, here or elsewhere; taking them into a ledger.

It knows rows, limits and the file, no judges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.grading import SimilarityModel, grade_many

from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.offline.rollouts_file import RolloutLine, append_lines, open_for_more, read_lines, write_lines
from shammah_trainer.offline.study import Study
from shammah_trainer.rollouts import RolloutSettings, complete_rows, decide_good

Progress = Callable[[int, int], None]
_GRADED_TOGETHER = 256


def answer_rows(
    path: Path,
    *,
    generator: str,
    folder: Path,
    rows: Sequence[LedgerRow],
    limits: Mapping[str, int],
    settings: RolloutSettings,
    progress: Progress = lambda done, rows: None,
) -> int:
    """Append a response of the generator in `folder` for each row that the file lacks; return how many were made.

    `generator` is the name that the lines bear. A kill loses at most the rows that were being computed.

    Raises:
        ArtifactError: the generator can't be loaded. StorageFullError: no room for the file.
    """
    known = {line.key for line in open_for_more(path)}
    missing = [row for row in rows if (generator, row.id, limits[row.category]) not in known]
    if not missing:
        return 0
    done = 0
    with closing(complete_rows(folder, missing, limits=limits, settings=settings)) as chunks:
        for chunk in chunks:
            append_lines(
                path,
                [
                    RolloutLine(
                        generator=generator,
                        id=row.id,
                        limit=limits[row.category],
                        text=made.text,
                        reason=made.reason,
                        statistics=tuple(made.statistics.as_features()),
                    )
                    for row, made in chunk
                ],
            )
            done += len(chunk)
            progress(done, len(missing))
    return done


def grade_file(
    source: Path,
    target: Path,
    study: Study,
    *,
    similarity: SimilarityModel | None = None,
    progress: Progress = lambda done, rows: None,
) -> dict[str, int]:
    """Grade the responses of `source` into `target`; what `target` has graded already is kept.

    Returns:
        How many are good, bad and ungraded.

    Raises:
        InvalidInputError: a line is of a row that the study does not have.
    """
    examples = {row.id: row.example for part in ("dev", "exam", "test") for row in study.rows(part)}
    graded = {line.key: line for line in open_for_more(target)}
    lines = [line for line in read_lines(source) if line.key not in graded]
    unknown = [line.id for line in lines if line.id not in examples]
    if unknown:
        raise InvalidInputError(f"{len(unknown)} rollouts of {source} are of no row of this study, e.g. {unknown[0]}")
    for start in range(0, len(lines), _GRADED_TOGETHER):
        chunk = lines[start : start + _GRADED_TOGETHER]
        grades = grade_many([(line.text, examples[line.id]) for line in chunk], similarity=similarity)
        for line, grade in zip(chunk, grades, strict=True):
            values = {
                name: getattr(line, name) for name in ("generator", "id", "limit", "text", "reason", "statistics")
            }
            good = decide_good(line.reason, grade)
            graded[line.key] = RolloutLine(**values, good=good, detail=grade.detail or grade.grader)
        progress(start + len(chunk), len(lines))
    write_lines(target, list(graded.values()))
    goods = [line.good for line in graded.values()]
    return {"good": goods.count(True), "bad": goods.count(False), "ungraded": goods.count(None)}


def take_into_ledger(ledger: Ledger, path: Path, *, versions: Mapping[str, str]) -> dict[str, int]:
    """Put graded rollouts into the ledger under the versions that their generators are, as a round finds its own.

    Returns:
        How many lines of each generator there were.
    """
    counts: dict[str, int] = dict.fromkeys(versions, 0)
    with ledger.transaction():
        for line in read_lines(path):
            if line.generator not in versions:
                raise InvalidInputError(f"{path}: generator {line.generator!r}; allowed: {', '.join(versions)}")
            values = (
                *(versions[line.generator], line.id, line.limit, line.text, line.reason),
                *(json.dumps(line.statistics), None if line.good is None else int(line.good), line.detail),
            )
            ledger.execute("INSERT OR REPLACE INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            counts[line.generator] += 1
    return counts
