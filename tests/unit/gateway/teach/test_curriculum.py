from __future__ import annotations

from collections import Counter

import pytest
from shammah_chassis.learning_curve import Curve, Point, Prospect
from shammah_gateway.teach.curriculum import Track, note_analysis, plan_lessons
from shammah_gateway.teach.findings import Finding, describe_exam_needs, list_exam_needs, measure, read_findings
from shammah_gateway.teach.settings import Goal, TeachSettings
from shammah_gateway.teaching_plan import plan_examples


def found(category: str, accuracy: float = 0.4, **more: object) -> Finding:
    points = (Point(0, 0.0, 25.0), Point(50, 25 * accuracy, 25.0))
    known = {"rows": 50, "points": points, "share": 0.2, **more}
    return Finding(category=category, tested=25, accuracy=accuracy, **known)  # type: ignore[arg-type]


def track(category: str, accuracy: float = 0.4, **more: object) -> Track:
    return Track(category=category, finding=found(category, accuracy, **more))


def test_lessons_are_the_plan_of_the_open_categories() -> None:
    stuck = (Point(0, 0.0, 25.0), Point(200, 0.0, 100.0))
    tracks = [track("learns", 0.5), track("fails", 0.0, points=stuck, rows=200), track("rare", 0.5, share=0.05)]
    lessons = plan_lessons(tracks, TeachSettings(examples=130, floor=10))
    counts = Counter({one.category: 0 for one in lessons})
    for one in lessons:
        counts[one.category] += one.count
    prospects = {
        one.category: Prospect(Curve(one.finding.points), one.finding.rows, one.finding.share)
        for one in tracks
        if one.finding is not None
    }
    assert counts == plan_examples(prospects, 130, worth=0.0)
    assert counts["fails"] == 10 and counts["learns"] > 2 * counts["rare"]
    assert {one.category: one.difficulty for one in lessons} == {"learns": "medium", "fails": "easy", "rare": "medium"}


def test_findings_read_what_a_plan_needs() -> None:
    row = {"category": "a", "tested": 10, "accuracy": 0.5, "local_good": 4, "local_bad": 0, "certified": True}
    row |= {"rows_missing": 0, "trained_examples": 40, "queued_examples": 15, "share": 0.3}
    curve = [{"rows": 0, "accuracy": 0.1, "graded": 20}, {"rows": 40, "accuracy": 0.5, "graded": 10}]
    found = read_findings({"categories": [{**row, "curve": curve}]})["a"]
    assert (found.rows, found.share, found.points) == (55, 0.3, (Point(0, 2.0, 20), Point(40, 5.0, 10)))
    # A gateway of before tells no curve: what was tested now is known all the same.
    assert read_findings({"categories": [row]})["a"].points == (Point(40, 5.0, 10),)


def test_nothing_known_is_an_even_start() -> None:
    tracks = [Track(category=name) for name in ("a", "b")]
    lessons = plan_lessons(tracks, TeachSettings(examples=90))
    assert [(one.category, one.count, one.difficulty) for one in lessons] == [("a", 45, "easy"), ("b", 45, "easy")]


def test_a_lesson_is_never_longer_or_shorter_than_the_tool_takes() -> None:
    for total in range(10, 320):
        lessons = plan_lessons([track("a")], TeachSettings(examples=total))
        assert all(10 <= one.count <= 100 for one in lessons)
        assert total - 5 < sum(one.count for one in lessons) <= total


def test_what_reached_the_goal_is_exhausted_given_up_or_lacks_rows_is_not_taught() -> None:
    settings = TeachSettings(goal=Goal("local_share", 0.6))
    closed = [
        track("reached", 0.9, certified=True, local_share=0.7),
        Track(category="exhausted", exhausted=True),
        Track(category="given_up", finding=found("given_up"), flat_rounds=2),
        track("lacks", 0.97, rows_missing=30),
    ]
    assert plan_lessons(closed, settings) == []
    assert [one.category for one in plan_lessons([*closed, track("open")], settings)] == ["open"]
    # For accuracy exam rows do not matter.
    assert plan_lessons(closed[3:], TeachSettings(goal=Goal("accuracy", 0.99)))


def test_two_taught_rounds_without_a_rise_give_a_category_up_and_a_rise_takes_that_back() -> None:
    one = note_analysis(track("a", 0.4), found("a", 0.41), taught=50)
    assert (one.flat_rounds, one.given_up, one.taught) == (1, False, 50)
    assert note_analysis(one, found("a", 0.6), taught=50).flat_rounds == 0
    assert note_analysis(one, found("a", 0.41), taught=50, exam_rise=0.1).flat_rounds == 0
    assert note_analysis(one, found("a", 0.3), taught=50).given_up
    # A round that taught it nothing says nothing about it.
    assert note_analysis(one, found("a", 0.3), taught=0).flat_rounds == 1


def test_the_measure_is_the_plain_mean_and_an_unseen_category_counts_as_nothing() -> None:
    findings = {"a": found("a", 0.8, certified=True, local_share=0.5), "b": found("b", 0.4)}
    assert measure(findings, (), Goal("accuracy", 0.9)) == pytest.approx(0.6)
    assert measure(findings, (), Goal("local_share", 0.9)) == pytest.approx(0.25)
    assert measure(findings, ("a", "new"), Goal("local_share", 0.9)) == pytest.approx(0.25)
    assert measure({}, (), Goal("local_share", 0.9)) == 0.0


def test_missing_exam_rows_are_told_with_the_command_that_helps() -> None:
    findings = {"a": found("a", rows_missing=12), "b": found("b", rows_missing=-1), "c": found("c", certified=True)}
    needs = list_exam_needs(findings)
    assert needs == {"a": 12}
    assert describe_exam_needs(needs) == "certification needs 12 more exam rows (a 12): shammah learn FILE --exam"
