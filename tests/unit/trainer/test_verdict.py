"""What follows from a report of the gate, and from what audits withdrew of the champion."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shammah_chassis.releases import CategoryPolicy, Release, Rung
from shammah_trainer.gate import GateReport, Outcomes, decide
from shammah_trainer.verdict import conclude, withdraw

ROWS = [f"r{n}" for n in range(100)]


@pytest.mark.parametrize(("erases", "verdict"), [(False, "undecided"), (True, "promote")])
def test_an_equal_release_takes_over_where_the_champions_index_has_what_was_forgotten(
    erases: bool, verdict: str
) -> None:
    same = {"spam": Outcomes({f"r{n}": True for n in range(40)}, frozenset({"r1", "r2"}))}
    gate = decide(same, same)
    assert gate.verdict == "undecided"
    assert conclude(make_draft(), gate, erases=erases).verdict == verdict


def test_a_worse_release_does_not_take_over_for_the_sake_of_what_was_forgotten() -> None:
    names = [f"r{n}" for n in range(200)]
    before = {"spam": Outcomes(dict.fromkeys(names, True))}
    after = {"spam": Outcomes(dict.fromkeys(names, False))}
    assert conclude(make_draft(), decide(before, after), erases=True).verdict == "held"


def make_served(*, spam: bool, dates: bool) -> Release:
    """A release that answers what is certified of it."""
    certified = CategoryPolicy(threshold=0.5, ladder=(Rung(0.02, 0.8),))
    forwarded = CategoryPolicy(threshold=None)
    named = {"spam": certified if spam else forwarded, "dates": certified if dates else forwarded}
    return replace(make_draft(), categories=named)


def compare(champion: Release, candidate: Release) -> GateReport:
    """Compare two students that are right on every row, by what each release answers locally."""

    def outcomes(release: Release) -> dict[str, Outcomes]:
        return {
            name: Outcomes(dict.fromkeys(ROWS, True), frozenset(ROWS if policy.threshold is not None else ()))
            for name, policy in release.categories.items()
        }

    return decide(outcomes(champion), outcomes(candidate))


WITHDRAWN = frozenset({"spam"})


def test_what_was_withdrawn_of_the_champion_is_no_loss_of_a_candidate_that_is_better_elsewhere() -> None:
    champion, candidate = make_served(spam=True, dates=False), make_served(spam=False, dates=True)
    assert compare(champion, candidate).verdict == "undecided"
    assert compare(make_served(spam=True, dates=True), candidate).verdict == "held"
    assert compare(withdraw(champion, WITHDRAWN), withdraw(candidate, WITHDRAWN)).verdict == "promote"


def test_an_equal_candidate_does_not_take_over_for_certifying_what_audits_withdrew() -> None:
    same = make_served(spam=True, dates=True)
    report = compare(withdraw(same, WITHDRAWN), withdraw(same, WITHDRAWN))
    assert report.verdict == "undecided"
    assert report.local_share_before == report.local_share_after == 0.5
    made = conclude(same, report, erases=False, withdrawn=WITHDRAWN)
    assert "spam" in made.reasons[-1]
    # What the exam certifies is what the release says: it is compared without, not made without.
    assert made.categories == same.categories


def test_a_withdrawn_category_has_no_threshold_under_any_alpha_and_the_others_keep_theirs() -> None:
    release = make_served(spam=True, dates=True)
    served = withdraw(release, frozenset({"spam", "of no release"}))
    assert served.threshold_of("spam") is served.threshold_of("spam", 0.02) is None
    assert "audits" in served.categories["spam"].reason
    assert served.categories.keys() == release.categories.keys()
    assert served.categories["dates"] == release.categories["dates"]
    assert withdraw(release, frozenset()) == release


def make_draft() -> Release:
    return Release(
        id="01J0000000000000000000000A",
        parent="",
        created_at=0.0,
        router="r",
        generator="g",
        validator="v",
        verdict="undecided",
        categories={},
    )
