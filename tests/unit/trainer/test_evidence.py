"""Evidence: what the cascade would accept, and the prefilter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shammah_chassis.releases import CategoryPolicy, Release, Rung
from shammah_trainer.certify import MAX_WEIGHT, certify, certify_ladder
from shammah_trainer.evidence import (
    ScoredRow,
    choose_prefilter,
    combine,
    gather_evidence,
    gather_outcomes,
    is_local,
    make_policies,
    passes,
    summarise_exam,
)
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.rollouts import Rollout
from shammah_trainer.scoring import Judged, Routed
from support.trainer import make_example

LIMITS = {"a": 10, "b": 3}


def item(
    number: int = 0,
    *,
    own: str = "a",
    routed: str = "a",
    local: float = 0.9,
    quality: float = 0.9,
    good: bool = True,
    tokens: int = 2,
    reason: str = "stop",
    truncated: bool = False,
) -> ScoredRow:
    example = make_example(f"question {number} {own}", "yes", category=own)
    row = LedgerRow(f"{own}{number}", 1, "exam", own, "c", False, 1.0, 0, example)
    statistics = (0.0,) * 4 + (float(tokens + (reason == "stop")),) + (0.0,) * 5
    rollout = Rollout("yes", reason, statistics, good, LIMITS[own])
    return ScoredRow(row, rollout, Routed(local, routed, truncated), Judged(quality, truncated=False))


def from_traffic(number: int, origin: str) -> ScoredRow:
    """A row that was sampled with a probability of 2 %."""
    plain = item(number)
    provenance = replace(plain.row.example.provenance, origin=origin, source="gateway", propensity=0.02)
    example = replace(plain.row.example, provenance=provenance)
    return replace(plain, row=replace(plain.row, sequence=number, example=example))


def release(threshold: float | None) -> Release:
    policies = {
        "a": CategoryPolicy(threshold=threshold, max_new_tokens=10),
        "b": CategoryPolicy(threshold=None, max_new_tokens=3),
    }
    return Release("R", "", 0.0, "r", "g", "v", "promote", policies, prefilter=0.5)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (item(), True),
        (item(local=0.4), False),
        (item(routed=""), False),
        (item(truncated=True), False),
        (item(tokens=10, reason="length", good=False), False),
        # The router takes it for b: too long for b's limit, so it would be cut there.
        (item(routed="b", tokens=5), False),
        # Cut at b's limit, but the router would give it a's room: it would be served, and counts as bad.
        (item(own="b", routed="a", tokens=3, reason="length", good=False), True),
        (item(reason="error", good=False), False),
    ],
)
def test_only_what_the_cascade_would_compare_passes(row: ScoredRow, expected: bool) -> None:
    assert passes(row, prefilter=0.5, limits=LIMITS) is expected


def test_the_prefilter_loses_at_most_one_good_row_in_a_hundred() -> None:
    rows = [item(i, local=i / 300) for i in range(300)] + [item(1000 + i, local=0.0, good=False) for i in range(50)]
    prefilter = choose_prefilter(rows)
    lost = sum(row.good and row.routed.local_probability < prefilter for row in rows)
    assert lost == 3
    assert prefilter > 0


def test_the_prefilter_lets_everything_pass_when_there_is_no_good_row() -> None:
    assert choose_prefilter([item(good=False)]) == 0.0
    assert choose_prefilter([]) == 0.0


def test_evidence_is_grouped_by_what_the_router_predicts() -> None:
    rows = [item(1), item(2, own="b", routed="a", good=False), item(3, routed="")]
    evidence = gather_evidence(rows[:1], rows, prefilter=0.5, limits=LIMITS)
    assert evidence.keys() == {"a"}
    assert [(row.good, row.eligible) for row in evidence["a"].exam] == [(True, True), (False, True)]


def test_audits_are_no_evidence_and_what_was_explored_weighs_like_any_forwarded_row() -> None:
    exam = [item(1), from_traffic(2, "explore"), from_traffic(3, "audit"), from_traffic(4, "teacher")]
    evidence = gather_evidence([item()], exam, prefilter=0.5, limits=LIMITS)["a"]
    # What was forwarded from the first audit on is what the student would not answer.
    assert [row.weight for row in evidence.exam] == [1.0, 1.0]
    other = [replace(row, row=replace(row.row, category="b")) for row in exam[2:3]]
    evidence = gather_evidence([item()], [*exam[:2], *other, exam[3]], prefilter=0.5, limits=LIMITS)["a"]
    assert [row.weight for row in evidence.exam] == [1.0, 1.0, 50.0]


def test_a_row_that_stands_for_more_than_certification_bears_keeps_no_round_from_ending() -> None:
    heavy = from_traffic(2, "teacher")
    provenance = replace(heavy.row.example.provenance, propensity=0.001)
    heavy = replace(heavy, row=replace(heavy.row, example=replace(heavy.row.example, provenance=provenance)))
    evidence = gather_evidence([item(number) for number in range(40)], [heavy], prefilter=0.5, limits=LIMITS)
    assert [row.weight for row in evidence["a"].exam] == [MAX_WEIGHT]
    assert certify(evidence, alpha=0.2, delta=0.2)["a"].rows == 1


def test_policies_carry_the_certificate_and_its_ladder_for_every_label() -> None:
    dev, exam = [item(i) for i in range(40)], [item(1000 + i) for i in range(200)]
    evidence = gather_evidence(dev, exam, prefilter=0.5, limits=LIMITS)
    certificates = certify(evidence)
    ladders = certify_ladder(evidence, certificates)
    made = make_policies(certificates, exam, labels=["a", "b"], limits=LIMITS, ladders=ladders)
    assert (made["a"].threshold, made["a"].accepted, made["a"].ladder) == (0.9, 200, (Rung(0.02, 0.9),))
    assert (made["b"].threshold, made["b"].ladder, made["b"].max_new_tokens) == (None, (), 3)


def test_a_category_without_a_threshold_is_never_local() -> None:
    assert not is_local(item(), release(None))
    assert is_local(item(), release(0.8))
    assert not is_local(item(quality=0.7), release(0.8))
    assert not is_local(item(own="b", routed="b"), release(0.8))


def test_outcomes_and_summary_go_by_the_rows_own_category() -> None:
    rows = [item(1), item(2, quality=0.1), item(3, own="b", routed="b", good=False), item(4)]
    made = release(0.8)
    outcomes = gather_outcomes(rows, made, frozenset({"a1", "a2", "b3"}))
    assert outcomes["a"].local == {"a1"}
    assert outcomes["b"].good == {"b3": False}
    summary = summarise_exam(rows, made, ["a", "b", "c"])
    assert summary["a"]["local_share"] == pytest.approx(2 / 3)
    assert (summary["a"]["certified"], summary["b"]["certified"], summary["c"]["rows"]) == (True, False, 0)


def test_a_row_that_could_not_be_graded_is_no_evidence() -> None:
    known = item()
    ungraded = Rollout("yes", "stop", known.rollout.statistics, None, 10)
    routes = {known.row.id: known.routed}
    assert combine([known.row], {known.row.id: ungraded}, routes, {}) == []
    assert len(combine([known.row], {known.row.id: known.rollout}, routes, {})) == 1
