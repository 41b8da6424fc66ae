"""Which part an example belongs to: `train`, `dev`, `exam`, or `judge`; or why it is not taken at all.

Pure rules over counts and clusters; where they are kept is the ledger's affair. They depend only on the log's order, so
a lost ledger that is rebuilt from the log gives the same parts.

- A cluster of near-duplicate queries lies in one part. A new cluster is placed by the hash of its first query.
- Only graded examples that are neither generated nor feedback are evidence (dev or exam); the rest trains. So does
  what the gateway marks for training: of a category that it serves, the log has what the student would not answer, and
  a few audits. That is no fair sample, and weighing it by the audits' rarity takes hundreds of them to prove anything.
- The user's exam rows (`part_hint`) are exam. They are refused near anything that was given for
  training before, and without a grader.
- Near an exam or dev cluster, what is no evidence is refused, with one exception: an explicit correction of the very
  same query is taught, and the whole cluster leaves the exam for train.
- Evidence that falls into a cluster that hashing made exam joins it (traffic repeats); near the user's own exam rows it
  is refused, so that a given exam stays as it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shammah_chassis.examples import Example

Part = Literal["train", "dev", "exam", "judge"]
Refusal = Literal["near_exam", "near_train", "ungraded_exam"]

SMALL_CATEGORY = 300
SMALL_SHARE = 1 / 3
SHARE = 0.1
MOST_ROWS = 1_000
_TAUGHT_ORIGINS = ("user_correction", "feedback")
_NO_EVIDENCE = ("synthetic", "feedback", "user_correction")
_UNGRADED = ("", "judge")


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """Rows of one category: `evidence` = graded rows placed by hash so far, `given` = exam rows given by the user."""

    evidence: int = 0
    given: int = 0
    dev: int = 0
    exam: int = 0


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Where a known cluster lies; `given`: by the user's exam file; `same`: this very normalised query is in it."""

    part: Part
    given: bool
    same: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """The part of one example, and whether its whole cluster moves to that part."""

    part: Part
    moves_cluster: bool = False


def is_evidence(example: Example) -> bool:
    """Say whether a rollout on this query tells of the traffic honestly.

    It has a grader, is no made-up or rated row, and is not marked for training.
    """
    return (
        example.part_hint != "train"
        and example.grader not in _UNGRADED
        and example.provenance.origin not in _NO_EVIDENCE
        and example.rating == 0
        and bool(example.reference or example.answers or example.tests)
    )


def place(example: Example, *, cluster: str, known: ClusterState | None, counts: CategoryCounts) -> Placement | Refusal:
    """Return the part of `example` (see the module's rules), or why it is refused.

    `cluster` is the SHA-256 (hex) that names its cluster, `known` that cluster's state or None when it is new.
    """
    if example.part_hint == "exam":
        return _place_given(known) if example.grader not in _UNGRADED else "ungraded_exam"
    if not example.response or _is_rated_attempt(example):
        # A bad rating without a corrected answer, or a liked text of the student's own: for the judge, nobody else.
        return "near_exam" if known and known.part in ("exam", "dev") else Placement("judge")
    if known is not None and known.part != "judge":
        return _join(example, known)
    if not is_evidence(example):
        return Placement("train", moves_cluster=known is not None)
    return Placement(_draw(cluster, counts), moves_cluster=known is not None)


def evidence_share(rows: int) -> float:
    """Return the share of a category's next evidence row that goes to exam (and, again, to dev)."""
    return SMALL_SHARE if rows < SMALL_CATEGORY else SHARE


def evidence_due(rows: int) -> float:
    """Return how many exam (or dev) rows a category of `rows` evidence rows gets: a third, then a tenth, to 1,000."""
    small = min(rows, SMALL_CATEGORY)
    return min(MOST_ROWS, small * SMALL_SHARE + (rows - small) * SHARE)


def _is_rated_attempt(example: Example) -> bool:
    own = example.response == example.student_attempt and not example.provenance.teacher
    return example.provenance.origin == "feedback" and own


def _place_given(known: ClusterState | None) -> Placement | Refusal:
    if known is None or known.part == "judge":
        return Placement("exam", moves_cluster=known is not None)
    return Placement("exam") if known.part == "exam" else "near_train"


def _join(example: Example, known: ClusterState) -> Placement | Refusal:
    if known.part == "train":
        return Placement("train")
    if is_evidence(example):
        return "near_exam" if known.given else Placement(known.part)
    if known.same and example.provenance.origin in _TAUGHT_ORIGINS:
        return Placement("train", moves_cluster=True)
    return "near_exam"


def _draw(cluster: str, counts: CategoryCounts) -> Part:
    """Place a new cluster by its hash: the low end of [0, 1) is exam, the high end dev, the rest train."""
    value = int(cluster[:13], 16) / 16**13
    share = evidence_share(counts.evidence)
    if value < share:
        # Where the user's exam already holds what the category would get, taught rows go to train and dev only.
        given_enough = counts.given > 0 and counts.given >= evidence_due(counts.evidence + 1)
        return "train" if given_enough or counts.exam >= MOST_ROWS else "exam"
    if value >= 1 - share and counts.dev < MOST_ROWS:
        return "dev"
    return "train"
