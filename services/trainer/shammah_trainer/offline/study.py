"""A study: the rows of one round and the rows that only measure it, as a value and as one file that can travel.

The machine with the GPU needs this file and a base model, no ledger: parts were decided where the ledger lies. It knows
rows, no files of the user's and no models.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import ArtifactError, NotFoundError
from shammah_chassis.examples import Example, canonical_json
from shammah_generator.model import TOKENIZER_NAME

from shammah_trainer.hyper import SftHyper
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.publishing import Version
from shammah_trainer.rollouts import choose_limits
from shammah_trainer.round_plan import RoundPlan

STUDY_FORMAT = 1
STUDY_NAME = "study.jsonl.gz"
PARTS = ("train", "dev", "exam", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """`plan`: what a round works on. `test`: rows that are only measured, in no ledger.

    `names`: by example id, the id that the row has in its workload file. `options`: how the study was cut, for people.
    """

    plan: RoundPlan
    test: tuple[LedgerRow, ...]
    names: Mapping[str, str]
    options: Mapping[str, Any]

    def rows(self, part: str) -> tuple[LedgerRow, ...]:
        """Return the rows of a part: train, dev, exam or test."""
        return {"train": self.plan.train, "dev": self.plan.dev, "exam": self.plan.exam, "test": self.test}[part]


def find_limits(study: Study, *, generator: Version, longest: int) -> dict[str, int]:
    """Return `max_new_tokens` by category as the round chooses them; a category that only the test has gets `longest`.

    `generator` is the one that the study taught.
    The cascade holds such a row to the limit of the category that it is taken for; here it is to be graded at its best.
    """
    judged = [*study.plan.dev, *study.plan.exam]
    limits = choose_limits(
        study.plan.train,
        judged,
        tokenizer=generator.folder / TOKENIZER_NAME,
        max_tokens=read_max_tokens(generator),
        longest=longest,
    )
    return {row.category: longest for row in study.test} | limits


def read_max_tokens(generator: Version) -> int:
    """Return how many tokens an example could have where this generator was taught; a longer response was left out."""
    return int(generator.manifest.hyper.get("max_tokens", SftHyper().max_tokens))


def write_study(study: Study, path: Path) -> None:
    """Write a study: a line about it, then a line for each row (gzip, the same bytes for the same study)."""
    head = {
        "format": STUDY_FORMAT,
        "position": study.plan.position,
        "seed": study.plan.seed,
        "options": dict(study.options),
    }
    lines = [canonical_json(head)]
    for part in PARTS:
        for row in study.rows(part):
            entry = {
                "part": part,
                "name": study.names.get(row.id, ""),
                "sequence": row.sequence,
                "cluster": row.cluster,
                "given": row.given,
                "example": row.example.to_json(),
            }
            lines.append(canonical_json(entry))
    write_atomic(path, gzip.compress("\n".join(lines).encode() + b"\n", 6, mtime=0))


def read_study(path: Path) -> Study:
    """Read what `write_study` wrote.

    Raises:
        NotFoundError: there is no such file.
        ArtifactError: it is no study, or of a newer format.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no study {path}; `prepare` makes one")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            head = json.loads(next(lines))
            if head["format"] > STUDY_FORMAT:
                raise ArtifactError(f"{path} has format {head['format']}; this program reads up to {STUDY_FORMAT}")
            names: dict[str, str] = {}
            found: dict[str, list[LedgerRow]] = {part: [] for part in PARTS}
            for line in lines:
                entry = json.loads(line)
                row = make_row(
                    Example.from_json(entry["example"]),
                    part=entry["part"],
                    sequence=entry["sequence"],
                    cluster=entry["cluster"],
                    given=entry["given"],
                )
                found[row.part].append(row)
                names[row.id] = entry["name"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ArtifactError(f"{path} is no study: {type(error).__name__}: {error}") from error
    plan = RoundPlan(
        new=tuple(found["train"]),
        replay=(),
        dev=tuple(found["dev"]),
        exam=tuple(found["exam"]),
        position=head["position"],
        seed=head["seed"],
    )
    return Study(plan=plan, test=tuple(found["test"]), names=names, options=head["options"])


def make_row(example: Example, *, part: str, sequence: int = 0, cluster: str = "", given: bool = False) -> LedgerRow:
    """Return an example as a row that nobody has trained on yet."""
    return LedgerRow(
        id=example.id,
        sequence=sequence,
        part=part,
        category=example.category,
        cluster=cluster,
        given=given,
        weight=example.weight,
        trained=0,
        example=example,
    )
