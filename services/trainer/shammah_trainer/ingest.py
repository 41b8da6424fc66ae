"""From messages of the example log to rows of the ledger: decode, refuse by policy, place in a part, store once.

It knows the ledger and the rules of `parts` and `policy`; it does not know the event bus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Envelope, Example
from shammah_chassis.neardup import NearDuplicates
from shammah_chassis.repeats import repeats
from shammah_chassis.text import normalise_query

from shammah_trainer.ledger import Ledger
from shammah_trainer.parts import CategoryCounts, ClusterState, Placement, is_evidence, place
from shammah_trainer.policy import TrainingPolicy, weigh

Outcome = Literal["new", "duplicate", "near_exam", "near_train", "ungraded_exam", "forbidden"]


@dataclass(slots=True)
class IngestReport:
    """What became of the examples of one message; `poison` is why it could not be read at all ("" when it could)."""

    counts: dict[str, int] = field(default_factory=dict)
    poison: str = ""


class Ingest:
    """Writes examples into the ledger, one message a transaction. Not safe for several threads at once."""

    def __init__(self, ledger: Ledger, policy: TrainingPolicy) -> None:
        """Rebuild the near-duplicate index from the ledger (about 0.2 ms a query)."""
        self._ledger = ledger
        self._policy = policy
        self._near = self._index()
        self._counts: dict[str, CategoryCounts] = {}
        self._counted_at = -1  # the ledger's changes for which `_counts` holds

    def _index(self) -> NearDuplicates:
        near = NearDuplicates()
        near.extend(text for (text,) in self._ledger.fetch("SELECT text FROM queries ORDER BY number"))
        return near

    def take_message(self, sequence: int, data: bytes) -> IngestReport:
        """Store the examples of one message and move the ledger's position to `sequence`, in one transaction.

        A message at or below the position changes nothing. What can't be read as an envelope is reported as poison; the
        position moves on, and the caller sends it to the dead letters.

        Raises:
            StorageFullError: the disk is full; nothing of the message was stored.
        """
        if sequence <= self._ledger.read_meta("sequence"):
            return IngestReport()
        try:
            examples: Sequence[Example] = Envelope.decode(data).examples
        except InvalidInputError as error:
            return self.take_examples(sequence, (), poison=error.message)
        return self.take_examples(sequence, examples)

    def take_examples(self, sequence: int, examples: Sequence[Example], *, poison: str = "") -> IngestReport:
        """As `take_message`, with the message's examples already read; `poison` is why they could not be."""
        report = IngestReport(poison=poison)
        if sequence <= self._ledger.read_meta("sequence"):
            return report
        try:
            with self._ledger.transaction():
                for example in examples:
                    outcome = self._take(weigh(example), sequence)
                    report.counts[outcome] = report.counts.get(outcome, 0) + 1
                if report.poison:
                    self._ledger.write_meta("poison", self._ledger.read_meta("poison") + 1)
                counted = self._counted_at == self._ledger.changes
                self._ledger.write_meta("sequence", sequence)
                self._counted_at = self._ledger.changes if counted else -1
        except BaseException:
            # The rows were rolled back; so must be what the index and the counts learned from them.
            self._near = self._index()
            self._counted_at = -1
            raise
        return report

    def check(self, example: Example) -> Outcome:
        """Say what ingestion would do with an offered example, without doing it.

        A generated one that only repeats a train row is called a duplicate too: it is not worth queueing. Ingestion
        takes it nevertheless, so that a ledger rebuilt from an old log is the same.
        """
        outcome, _, cluster = self._decide(example)
        if outcome == "new":
            near = self._ledger.rows("cluster = ? AND part = 'train'", (cluster,))
            return "duplicate" if repeats(example, (row.example for row in near)) else "new"
        return outcome

    def rebuild_index(self) -> None:
        """Read the near-duplicate index from the ledger again, after rows were taken out of it."""
        self._near = self._index()

    def _take(self, example: Example, sequence: int) -> Outcome:
        self._write("INSERT OR IGNORE INTO sources VALUES (?, ?, ?)", (example.id, sequence, example.request))
        outcome, placement, cluster = self._decide(example)
        if outcome == "duplicate":
            return outcome
        if placement is None:
            self._write("INSERT OR IGNORE INTO refused VALUES (?, ?, ?)", (example.id, sequence, outcome))
            return outcome
        text = normalise_query(example.query_text)
        self._near.add(text)
        self._write("INSERT OR IGNORE INTO queries (text) VALUES (?)", (text,))
        given = example.part_hint == "exam" and placement.part == "exam"
        if placement.moves_cluster:
            self._move(cluster, placement.part, given=given)
        self._write("INSERT OR IGNORE INTO clusters VALUES (?, ?, ?)", (cluster, placement.part, int(given)))
        evidence = is_evidence(example) and not given
        self._ledger.insert(
            example, sequence=sequence, part=placement.part, cluster=cluster, given=given, evidence=evidence
        )
        if not placement.moves_cluster:
            self._note(example.category, placement.part, given=given, evidence=evidence)
        return outcome

    def _decide(self, example: Example) -> tuple[Outcome, Placement | None, str]:
        if self._ledger.has(example.id):
            return "duplicate", None, ""
        if self._policy.refuse(example):
            return "forbidden", None, ""
        text = normalise_query(example.query_text)
        found = self._near.find(text)
        # A new cluster is named by its first query, exactly as NearDuplicates.add will name it.
        cluster = found if found is not None else hashlib.sha256(text.encode()).hexdigest()
        known = self._read_cluster(cluster, text) if found is not None else None
        placed = place(example, cluster=cluster, known=known, counts=self._count(example.category))
        return ("new", placed, cluster) if isinstance(placed, Placement) else (placed, None, cluster)

    def _read_cluster(self, cluster: str, text: str) -> ClusterState | None:
        rows = self._ledger.fetch("SELECT part, given FROM clusters WHERE cluster = ?", (cluster,))
        if not rows:
            return None
        same = bool(self._ledger.fetch("SELECT 1 FROM queries WHERE text = ?", (text,)))
        return ClusterState(part=rows[0][0], given=bool(rows[0][1]), same=same)

    def _move(self, cluster: str, part: str, *, given: bool) -> None:
        """Move a cluster; its exam and dev rows move with it (they may not stay beside what is taught now)."""
        self._ledger.execute("UPDATE clusters SET part = ?, given = ? WHERE cluster = ?", (part, int(given), cluster))
        if part == "train":
            self._ledger.execute(
                "UPDATE examples SET part = 'train', given = 0 WHERE cluster = ? AND part IN ('exam', 'dev')",
                (cluster,),
            )

    def _count(self, category: str) -> CategoryCounts:
        """Return the counts of a category, without a query while nobody but `_take` has written since the last one."""
        if self._counted_at != self._ledger.changes:
            self._counts.clear()
            self._counted_at = self._ledger.changes
        if category not in self._counts:
            sql = (
                "SELECT COALESCE(SUM(evidence), 0), COALESCE(SUM(given), 0), COALESCE(SUM(part = 'dev'), 0), "
                "COALESCE(SUM(part = 'exam'), 0) FROM examples WHERE category = ?"
            )
            self._counts[category] = CategoryCounts(*self._ledger.fetch(sql, (category,))[0])
        return self._counts[category]

    def _write(self, sql: str, values: tuple[object, ...]) -> None:
        """Write what the counts don't depend on."""
        counted = self._counted_at == self._ledger.changes
        self._ledger.execute(sql, values)
        if counted:
            self._counted_at = self._ledger.changes

    def _note(self, category: str, part: str, *, given: bool, evidence: bool) -> None:
        """Add one stored row to the counts."""
        counts = self._counts[category]
        self._counts[category] = replace(
            counts,
            evidence=counts.evidence + evidence,
            given=counts.given + given,
            dev=counts.dev + (part == "dev"),
            exam=counts.exam + (part == "exam"),
        )
        self._counted_at = self._ledger.changes


def strip_example(example: Example) -> Example:
    """Return the example as a tool may see it: without who asked and what the student tried."""
    return replace(example, user="", student_attempt="", request="")
