"""From rollouts and scores to evidence: prefilter, certificates, category policies, and what the gate compares.

Everything is seen as the cascade would serve it: by the category that the router predicts, past its prefilter, answered
whole within the limit. It knows scores and grades, no models.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shammah_chassis.examples import Example
from shammah_chassis.releases import CategoryPolicy, Release, Rung

from shammah_trainer.certify import MAX_WEIGHT, CategoryEvidence, Certificate, GradedRow
from shammah_trainer.gate import Outcomes
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.rollouts import UNTAUGHT_RESPONSE, Rollout
from shammah_trainer.scoring import Judged, Routed

PREFILTER_LOSS = 0.01
_FEWEST_FOR_DECILES = 20
_NO_SCORE = Judged(0.0, truncated=False)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One dev or exam row with everything that the cascade would know of it, and the grade that it would not."""

    row: LedgerRow
    rollout: Rollout
    routed: Routed
    judged: Judged

    @property
    def good(self) -> bool:
        """Whether the response was right under its grader."""
        return bool(self.rollout.good)


def combine(
    rows: Sequence[LedgerRow],
    rollouts: Mapping[str, Rollout],
    routed: Mapping[str, Routed],
    judged: Mapping[str, Judged],
) -> list[ScoredRow]:
    """Join what is known of each row; rows that could not be graded are no evidence and are left out."""
    return [
        ScoredRow(row, rollouts[row.id], routed[row.id], judged.get(row.id, _NO_SCORE))
        for row in rows
        if row.id in rollouts and rollouts[row.id].good is not None
    ]


def leave_out(
    dev: Sequence[ScoredRow], *, dev_local: Mapping[str, float], dev_quality: Mapping[str, float]
) -> list[ScoredRow]:
    """Give dev rows, by id, the scores of heads that have not seen them; others keep those of the served heads.

    Prefilter and order of thresholds are read off dev rows, and the served heads were fitted on dev rows. What is empty
    or unrouted keeps its score, which comes from no head; so does what is taken for another category: its score would
    be as of its own. The category head itself learns from dev rows.
    """
    found = []
    for item in dev:
        told = is_told(item.row, item.rollout, item.routed, dev_quality)
        local = dev_local.get(item.row.id, item.routed.local_probability)
        quality = dev_quality[item.row.id] if told else item.judged.quality
        found.append(
            replace(
                item,
                routed=replace(item.routed, local_probability=local),
                judged=replace(item.judged, quality=quality),
            )
        )
    return found


def is_told(row: LedgerRow, rollout: Rollout, routed: Routed, dev_quality: Mapping[str, float]) -> bool:
    """Tell whether `leave_out` takes the quality of a dev row from `dev_quality`: the served head need not be asked."""
    return row.id in dev_quality and routed.category == row.category and bool(rollout.text.strip())


def passes(item: ScoredRow, *, prefilter: float, limits: Mapping[str, int]) -> bool:
    """Say whether the cascade would come as far as comparing this row's quality with a threshold."""
    if not item.routed.category or item.routed.truncated or item.judged.truncated:
        return False
    if item.routed.local_probability < prefilter:
        return False
    limit = limits.get(item.routed.category, UNTAUGHT_RESPONSE)
    if item.rollout.whole:
        return item.rollout.tokens <= limit
    # Cut at its own category's limit, but sent to one with more room: it would be served, and counts as bad.
    return item.rollout.reason == "length" and limit > item.rollout.max_tokens


def choose_prefilter(dev: Iterable[ScoredRow]) -> float:
    """Return the highest router threshold that loses at most 1 % of the good dev rows the cascade could serve.

    0 (everything passes) when there is no good row to lose.
    """
    kept = sorted(item.routed.local_probability for item in dev if item.good and item.routed.category)
    return kept[math.floor(PREFILTER_LOSS * len(kept))] if kept else 0.0


def gather_evidence(
    dev: Sequence[ScoredRow], exam: Sequence[ScoredRow], *, prefilter: float, limits: Mapping[str, int]
) -> dict[str, CategoryEvidence]:
    """Group graded rows by the category that the router predicts; what it knows none for is forwarded anyway.

    Traffic that an older log placed here from the first audit of its category on is left out: beside it, what the
    student answered unaudited is missing.
    """
    dev, exam = _leave_out_served(dev), _leave_out_served(exam)

    def graded(items: Sequence[ScoredRow], name: str) -> list[GradedRow]:
        return [
            GradedRow(
                score=item.judged.quality,
                good=item.good,
                eligible=passes(item, prefilter=prefilter, limits=limits),
                weight=_weigh(item.row.example),
            )
            for item in items
            if item.routed.category == name
        ]

    names = sorted({item.routed.category for item in (*dev, *exam)} - {""})
    return {name: CategoryEvidence(dev=graded(dev, name), exam=graded(exam, name)) for name in names}


def _leave_out_served(items: Sequence[ScoredRow]) -> list[ScoredRow]:
    served: dict[str, int] = {}
    for item in items:
        if item.row.example.provenance.origin == "audit":
            served[item.row.category] = min(item.row.sequence, served.get(item.row.category, item.row.sequence))

    def is_fair(item: ScoredRow) -> bool:
        early = item.row.sequence < served.get(item.row.category, math.inf)
        return early or item.row.example.provenance.source != "gateway"

    return [item for item in items if is_fair(item)]


def _weigh(example: Example) -> float:
    """Return 1 / the probability with which a row came into the log; what was explored would be there in any case.

    At most what certification bears: a log from before the gateway checked must not keep rounds from ending.
    """
    if example.provenance.origin == "explore":
        return 1.0
    return min(MAX_WEIGHT, 1.0 / example.provenance.propensity)


def make_policies(
    certificates: Mapping[str, Certificate],
    exam: Sequence[ScoredRow],
    *,
    labels: Sequence[str],
    limits: Mapping[str, int],
    ladders: Mapping[str, tuple[Rung, ...]],
    prefilter: float = 0.0,
    trained: Mapping[str, int] | None = None,
) -> dict[str, CategoryPolicy]:
    """Return what the release may do in each category that its router knows."""
    scores: dict[str, list[float]] = {}
    for item in exam:
        if passes(item, prefilter=prefilter, limits=limits):
            scores.setdefault(item.routed.category, []).append(item.judged.quality)
    policies = {}
    for name in labels:
        own = [item for item in exam if item.row.category == name]
        found = certificates.get(name)
        policies[name] = CategoryPolicy(
            threshold=found.threshold if found else None,
            rows=found.rows if found else 0,
            accepted=found.accepted if found else 0,
            errors=found.errors if found else 0,
            rows_missing=found.rows_missing if found else 0,
            accuracy=sum(item.good for item in own) / len(own) if own else 0.0,
            local_share=found.local_share if found else 0.0,
            max_new_tokens=limits.get(name, UNTAUGHT_RESPONSE),
            reason=found.reason if found else "not certified: no exam rows",
            ladder=ladders.get(name, ()),
            score_edges=(edges := find_deciles(scores.get(name, []))),
            score_counts=count_between(scores.get(name, []), edges),
            trained_rows=(trained or {}).get(name, 0),
            exam_rows=len(own),
        )
    return policies


def find_deciles(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the (at most nine) different inner deciles of some scores; none for under 20: they would say nothing."""
    if len(scores) < _FEWEST_FOR_DECILES:
        return ()
    ordered = sorted(scores)
    return tuple(sorted({ordered[(tenth * len(ordered)) // 10] for tenth in range(1, 10)}))


def count_between(scores: Sequence[float], edges: Sequence[float]) -> tuple[int, ...]:
    """Return how many scores lie below, between and above the edges (one at an edge lies above it); none for none."""
    if not edges:
        return ()
    counts = [0] * (len(edges) + 1)
    for score in scores:
        counts[bisect.bisect_right(edges, score)] += 1
    return tuple(counts)


def is_local(item: ScoredRow, release: Release) -> bool:
    """Say whether `release` would answer this row locally, its own scores being those of `item`."""
    policy = release.categories.get(item.routed.category)
    if policy is None or policy.threshold is None:
        return False
    limits = {name: entry.max_new_tokens for name, entry in release.categories.items()}
    return passes(item, prefilter=release.prefilter, limits=limits) and item.judged.quality >= policy.threshold


def gather_outcomes(items: Sequence[ScoredRow], release: Release, ids: frozenset[str]) -> dict[str, Outcomes]:
    """Return the outcomes of one release by the rows' own category, on the rows `ids` that both releases have."""
    chosen = [item for item in items if item.row.id in ids]
    return {
        name: Outcomes(
            good={item.row.id: item.good for item in chosen if item.row.category == name},
            local=frozenset(i.row.id for i in chosen if i.row.category == name and is_local(i, release)),
        )
        for name in sorted({item.row.category for item in chosen})
    }


def summarise_exam(items: Sequence[ScoredRow], release: Release, labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return per own category of the exam rows: rows, accuracy, certified, local share and rows missing."""
    report: dict[str, dict[str, Any]] = {}
    for name in sorted({item.row.category for item in items} | set(labels)):
        own = [item for item in items if item.row.category == name]
        policy = release.categories.get(name)
        served = [item for item in own if is_local(item, release)]
        report[name] = {
            "rows": len(own),
            "accuracy": sum(item.good for item in own) / len(own) if own else 0.0,
            "certified": bool(policy and policy.threshold is not None),
            "local_share": len(served) / len(own) if own else 0.0,
            "local_errors": sum(not item.good for item in served),
            "rows_missing": policy.rows_missing if policy else 0,
            "reason": policy.reason if policy else "",
        }
    return report
