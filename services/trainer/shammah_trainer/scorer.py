"""Graded rows with what two judges say of them, as the cascade would see them.

It knows rows, rollouts and version folders; what follows from the scores is the affair of `evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shammah_trainer.encoders.query_vectors import QueryVectors
from shammah_trainer.evidence import ScoredRow, combine, is_told
from shammah_trainer.later import Later
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.publishing import Version
from shammah_trainer.rollouts import Rollout
from shammah_trainer.scoring import Judged, Routed, are_truncated, judge_responses, route_queries


class Scorer:
    """Asks router and validator of a release."""

    def __init__(self, vectors: QueryVectors, *, threads: int, device: str) -> None:
        self._vectors, self._threads, self._device = vectors, threads, device

    def score(
        self,
        rows: Sequence[LedgerRow],
        rollouts: Mapping[str, Rollout],
        judges: tuple[Version, Version],
        *,
        told: Mapping[str, float] | None = None,
    ) -> list[ScoredRow]:
        """Return the rows that have a graded rollout with what `judges`, router and validator, say of them.

        `told`: qualities by id that `leave_out` will put in the place of what the served head says.
        """
        told = told or {}
        rows = [row for row in rows if row.id in rollouts]
        routes = self._route(rows, judges[0])
        # Only what the router knows a category for is ever judged.
        known = [row for row in rows if routes[row.id].category]
        asked = [row for row in known if not is_told(row, rollouts[row.id], routes[row.id], told)]
        judged = self._judge(asked, rollouts, routes, judges[1])
        rest = [row for row in known if row.id not in judged]
        pairs = [(row.example.query_text, rollouts[row.id].text) for row in rest]
        cut = are_truncated(judges[1].folder, judges[1].manifest, pairs)
        judged |= {row.id: Judged(told[row.id], flag) for row, flag in zip(rest, cut, strict=True)}
        return combine(rows, rollouts, routes, judged)

    def score_both(
        self,
        dev: Sequence[LedgerRow],
        exam: Sequence[LedgerRow],
        rollouts: Mapping[str, Rollout],
        judges: tuple[Version, Version],
        *,
        told: Mapping[str, float],
    ) -> tuple[list[ScoredRow], list[ScoredRow]]:
        """As `score` of dev rows with `told`, and of exam rows; beside each other where a GPU leaves the host idle."""
        scoring = Later(lambda: self.score(exam, rollouts, judges), name="exam")
        try:
            if self._device == "cpu":
                scoring.settle()
            return self.score(dev, rollouts, judges, told=told), scoring.take()
        finally:
            scoring.close()

    def _route(self, rows: Sequence[LedgerRow], router: Version) -> dict[str, Routed]:
        queries = [row.example.query_text for row in rows]
        found = route_queries(router.folder, router.manifest, queries, threads=self._threads, vectors=self._vectors)
        return {row.id: route for row, route in zip(rows, found, strict=True)}

    def _judge(
        self,
        rows: Sequence[LedgerRow],
        rollouts: Mapping[str, Rollout],
        routes: Mapping[str, Routed],
        validator: Version,
    ) -> dict[str, Judged]:
        items = [
            (row.example.query_text, rollouts[row.id].text, routes[row.id].category, rollouts[row.id].statistics)
            for row in rows
        ]
        found = judge_responses(
            validator.folder,
            validator.manifest,
            items,
            threads=self._threads,
            vectors=self._vectors,
            device=self._device,
        )
        return {row.id: entry for row, entry in zip(rows, found, strict=True)}
