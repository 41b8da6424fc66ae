"""The watch: broken promises are withdrawn, doubtful ones tightened, and a restart forgets neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import StorageFullError
from shammah_chassis.releases import CategoryPolicy, Release, Rung
from shammah_gateway.promise import book
from shammah_gateway.promise.book import RELEASES, RETRY_SECONDS, PromiseBook
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
    times = iter([1000.0, *[4600.0] * 5000])
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


def test_a_broken_promise_is_known_before_the_first_query_after_a_restart(path: Path) -> None:
    release = make_release()
    audit(watch_at(path), release, good=20, bad=10)
    again = watch_at(path)
    assert again.threshold(release, "spam") is None
    assert again.reason(release, "spam") == "withdrawn"


def test_a_rollback_serves_nothing_that_was_withdrawn(path: Path) -> None:
    watch, bad, newer = watch_at(path), make_release(), make_release("01J0000000000000000000000B")
    audit(watch, bad, good=20, bad=10)
    audit(watch, newer, good=30, bad=0)
    assert watch.threshold(newer, "spam") == 0.5
    for seen in (watch, watch_at(path)):
        assert seen.threshold(bad, "spam") is None
        assert "10 of 30" in seen.alarms(bad)[0]
        assert seen.describe(newer, "spam", audit_rate=0.02).audits == 30


def test_drift_outlives_a_restart_and_its_reference_is_not_taken_from_what_drifted(path: Path) -> None:
    watch, release = watch_at(path), make_release(plain=CategoryPolicy(threshold=0.6))
    for name in ["spam"] * MIX_WINDOW + ["plain"] * MIX_WINDOW:
        watch.note_query(release, name)
    again = watch_at(path)
    assert again.threshold(release, "spam") == 0.8
    for _ in range(3 * MIX_WINDOW):
        again.note_query(release, "plain")
    assert again.threshold(release, "spam") == 0.8
    assert "mix of queries" in again.alarms(release)[0]
    for _ in range(MIX_WINDOW):
        again.note_query(release, "spam")
    assert again.threshold(release, "spam") == 0.5
    assert watch_at(path).threshold(release, "spam") == 0.5


def test_drifted_scores_outlive_a_restart(path: Path) -> None:
    watch, release = watch_at(path), make_release()
    for _ in range(SCORE_WINDOW):
        watch.note_score(release, "spam", 0.05, served=False)
    again = watch_at(path)
    assert again.threshold(release, "spam") == 0.8
    assert again.describe(release, "spam", audit_rate=0.02).state == "tightened"


def test_a_book_of_one_release_as_it_was_is_read(path: Path) -> None:
    release = make_release()
    entry = '{"audits": 30, "bad": 10, "logs": [3.0, 5.0, 8.0, 9.0]}'
    path.write_text(
        f'{{"release": "{release.id}", "since": 1, "categories": {{"spam": {entry}}}, "withdrawn": ["spam"]}}'
    )
    assert watch_at(path).threshold(release, "spam") is None


def test_how_long_a_breach_would_take_counts_what_this_process_served(path: Path) -> None:
    release = make_release()
    watch = PromiseWatch(PromiseBook(path), now=lambda: 1000.0)
    audit(watch, release, good=5, bad=0)
    times = iter([1_000_000.0, *[1_003_600.0] * 5000])
    again = PromiseWatch(PromiseBook(path), now=lambda: next(times))
    for _ in range(100):
        again.note_score(release, "spam", 0.9, served=True)
    seen = again.describe(release, "spam", audit_rate=0.5)
    assert seen.seconds_to_notice == pytest.approx(seen.audits_to_notice / 50 * 3600)


def test_only_the_last_releases_are_kept_and_those_that_broke_their_promise_longer(path: Path) -> None:
    watch, pinned = watch_at(path), make_release()
    audit(watch, pinned, good=20, bad=10)
    others = [make_release(f"01J00000000000000000000{number:03d}") for number in range(RELEASES + 8)]
    for release in others:
        audit(watch, release, good=30, bad=0)
    for seen in (watch, watch_at(path)):
        assert seen.threshold(pinned, "spam") is None
    again = watch_at(path)
    assert again.describe(others[8], "spam", audit_rate=0.02).audits == 30
    assert again.describe(others[7], "spam", audit_rate=0.02).audits == 0


def test_a_withdrawal_that_the_disk_refused_holds_and_is_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, release, newer = [0.0], make_release(), make_release("01J0000000000000000000000B")
    watch = PromiseWatch(PromiseBook(path, now=lambda: now[0]), now=lambda: 4600.0)

    def refuse(*_: object, **__: object) -> None:
        raise StorageFullError("no space left")

    with monkeypatch.context() as full:
        full.setattr(book, "write_atomic", refuse)
        audit(watch, release, good=20, bad=10)
        for number in range(RELEASES + 1):  # so many that the watch has to read it again
            watch.note_query(make_release(f"01J00000000000000000000{number:03d}"), "spam")
        assert watch.threshold(release, "spam") is None
    assert not path.exists()
    # Any query has it written, not only another audit of that category: it gets none any more.
    now[0] += RETRY_SECONDS
    assert watch.threshold(newer, "spam") == 0.5
    assert watch_at(path).threshold(release, "spam") is None


def test_while_the_book_cannot_be_read_everything_is_forwarded_and_nothing_is_overwritten(path: Path) -> None:
    release = make_release()
    audit(watch_at(path), release, good=20, bad=10)
    aside = path.rename(path.with_name("aside"))
    path.mkdir()  # a file that gives an error when it is read
    again, other = watch_at(path), make_release("01J0000000000000000000000B")
    audit(again, other, good=30, bad=0)
    assert again.threshold(other, "spam") is None
    assert "can't be read" in again.alarms(other)[0]
    path.rmdir()
    aside.rename(path)
    assert again.threshold(other, "spam") == 0.5
    assert again.alarms(other) == []
    audit(again, other, good=30, bad=0)
    assert again.threshold(release, "spam") is None
    assert watch_at(path).threshold(release, "spam") is None


def test_what_another_gateway_withdrew_is_forwarded_and_told_also_after_a_restart(path: Path) -> None:
    watch, release = watch_at(path), make_release(tickets=SPAM)
    audit(watch, release, good=30, bad=0)
    watch.note_elsewhere(release, {"spam"})
    for seen in (watch, watch_at(path)):
        assert seen.threshold(release, "spam") is None
        assert seen.reason(release, "spam") == "withdrawn"
        assert seen.describe(release, "spam", audit_rate=0.02).state == "withdrawn"
        (alarm,) = seen.alarms(release)
        assert "'spam'" in alarm and "another gateway" in alarm
        assert seen.threshold(release, "tickets") == 0.5
        assert seen.threshold(make_release("01J0000000000000000000000B"), "spam") == 0.5


def test_what_others_withdrew_is_added_to_and_never_taken_back(path: Path) -> None:
    watch, release = watch_at(path), make_release(tickets=SPAM)
    watch.note_elsewhere(release, {"spam"})
    watch.note_elsewhere(release, frozenset())
    watch.note_elsewhere(release, {"tickets"})
    assert watch.threshold(release, "spam") is None and watch.threshold(release, "tickets") is None
    # Audits of its own that break it are told with their figures, once.
    audit(watch, release, good=20, bad=10)
    assert [("another gateway" in alarm, "10 of 30" in alarm) for alarm in watch.alarms(release)] == [
        (False, True),
        (True, False),
    ]
    assert watch.withdrawn(release) == {"spam"}


def test_what_others_withdrew_is_remembered_as_long_as_what_it_withdrew_itself(path: Path) -> None:
    watch, pinned = watch_at(path), make_release()
    watch.note_elsewhere(pinned, {"spam"})
    for number in range(RELEASES + 8):
        audit(watch, make_release(f"01J00000000000000000000{number:03d}"), good=30, bad=0)
    for seen in (watch, watch_at(path)):
        assert seen.threshold(pinned, "spam") is None


def test_while_the_book_cannot_be_read_what_others_withdrew_does_not_overwrite_it(path: Path) -> None:
    release = make_release(tickets=SPAM)
    audit(watch_at(path), release, good=20, bad=10)
    aside = path.rename(path.with_name("aside"))
    path.mkdir()
    again = watch_at(path)
    again.note_elsewhere(release, {"tickets"})
    path.rmdir()
    aside.rename(path)
    again.note_elsewhere(release, {"tickets"})
    for seen in (again, watch_at(path)):
        assert seen.threshold(release, "spam") is None and seen.threshold(release, "tickets") is None
