"""The watch: broken promises are withdrawn, doubtful ones tightened, and a restart forgets neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.releases import CategoryPolicy, Release, Rung
from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.drift import MIX_WINDOW, SCORE_WINDOW
from shammah_gateway.promise.watch import PromiseWatch

EDGES = tuple(tenth / 10 for tenth in range(1, 10))
SPAM = CategoryPolicy(
    threshold=0.5, ladder=(Rung(0.02, 0.8),), score_edges=EDGES, score_counts=(20,) * 10, local_share=0.5
)


def make_release(name: str = "01J0000000000000000000000A", **categories: CategoryPolicy) -> Release:
    return Release(
        id=name, parent="", created_at=1000.0, router="r", generator="g", validator="v", verdict="promote",
        categories={"spam": SPAM, "other": CategoryPolicy(threshold=None), **categories},
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "promise.json"


def watch_at(path: Path, *, now: float = 4600.0) -> PromiseWatch:
    return PromiseWatch(PromiseBook(path), now=lambda: now)


def audit(watch: PromiseWatch, release: Release, *, good: int, bad: int) -> None:
    watch.note_query(release, "spam")
    for verdict in [True] * good + [False] * bad:
        watch.note_audit(release.id, "spam", verdict)


def test_a_kept_promise_changes_nothing(path: Path) -> None:
    watch, release = watch_at(path), make_release()
    audit(watch, release, good=95, bad=5)
    assert watch.threshold(release, "spam") == 0.5
    assert watch.reason(release, "spam") == ""
    assert watch.reason(release, "other") == "uncertified"
    assert watch.alarms(release) == []


def test_a_broken_promise_is_withdrawn_also_after_a_restart_and_not_for_another_release(path: Path) -> None:
    watch, release = watch_at(path), make_release()
    audit(watch, release, good=20, bad=10)
    assert watch.threshold(release, "spam") is None
    assert watch.reason(release, "spam") == "withdrawn"
    assert "10 of 30" in watch.alarms(release)[0]
    again = watch_at(path)
    again.note_query(release, "spam")
    assert again.threshold(release, "spam") is None
    assert again.describe(release, "spam", audit_rate=0.02).state == "withdrawn"
    newer = make_release("01J0000000000000000000000B")
    again.note_query(newer, "spam")
    assert again.threshold(newer, "spam") == 0.5


def test_audits_of_another_release_and_ungraded_ones_are_no_evidence(path: Path) -> None:
    watch, release = watch_at(path), make_release()
    watch.note_query(release, "spam")
    for _ in range(100):
        watch.note_audit("another", "spam", False)
        watch.note_audit(release.id, "spam", None)
    assert watch.describe(release, "spam", audit_rate=0.02).audits == 0
    assert watch.threshold(release, "spam") == 0.5


def test_drifted_scores_serve_what_is_certified_for_half_of_alpha(path: Path) -> None:
    watch, release = watch_at(path), make_release()
    for _ in range(SCORE_WINDOW):
        watch.note_score(release, "spam", 0.05, served=False)
    assert watch.threshold(release, "spam") == 0.8
    assert watch.describe(release, "spam", audit_rate=0.02).state == "tightened"
    assert "unlike those of the exam" in watch.alarms(release)[0]


def test_a_drifted_mix_tightens_every_category_and_forwards_where_there_is_no_rung(path: Path) -> None:
    watch, release = watch_at(path), make_release(plain=CategoryPolicy(threshold=0.6))
    for name in ["spam"] * MIX_WINDOW + ["plain"] * MIX_WINDOW:
        watch.note_query(release, name)
    assert watch.threshold(release, "spam") == 0.8
    assert watch.threshold(release, "plain") is None
    assert watch.reason(release, "plain") == "drift"
    assert "mix of queries" in watch.alarms(release)[0]


def test_a_stricter_wish_than_the_tightened_one_is_kept(path: Path) -> None:
    watch = watch_at(path)
    release = make_release(strict=CategoryPolicy(threshold=0.5, ladder=(Rung(0.02, 0.8), Rung(0.01, 0.9))))
    for name in ["spam"] * MIX_WINDOW + ["strict"] * MIX_WINDOW:
        watch.note_query(release, name)
    assert watch.threshold(release, "strict", 0.01) == 0.9
    assert watch.threshold(release, "strict", 0.04) == 0.8


def test_status_says_how_long_a_breach_would_take_to_notice(path: Path) -> None:
    times = iter([1000.0, *[4600.0] * 50])
    watch, release = PromiseWatch(PromiseBook(path), now=lambda: next(times)), make_release()
    for _ in range(100):
        watch.note_score(release, "spam", 0.9, served=True)
    seen = watch.describe(release, "spam", audit_rate=0.5)
    assert seen.seconds_to_notice == pytest.approx(seen.audits_to_notice / 50 * 3600)
    assert seen.evidence_seconds == 3600.0
    assert watch.describe(release, "other", audit_rate=0.5).seconds_to_notice == 0.0


def test_a_damaged_book_starts_anew(path: Path) -> None:
    release = make_release()
    path.write_text('{"release": "' + release.id + '", "since": 1, "categories": {"spam": {}}, "withdrawn": []}')
    watch = watch_at(path)
    watch.note_query(release, "spam")
    assert watch.threshold(release, "spam") == 0.5
