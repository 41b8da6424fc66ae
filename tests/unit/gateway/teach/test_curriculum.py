from __future__ import annotations

import pytest
from shammah_gateway.teach.curriculum import Track, choose_difficulty, note_analysis, plan_lessons
from shammah_gateway.teach.findings import Finding, describe_exam_needs, list_exam_needs, measure
from shammah_gateway.teach.settings import Goal, TeachSettings


def found(category: str, accuracy: float = 0.4, **more: object) -> Finding:
    return Finding(category=category, tested=25, accuracy=accuracy, **{"gain": 0.1, **more})  # type: ignore[arg-type]


def track(category: str, accuracy: float = 0.4, **more: object) -> Track:
    return Track(category=category, finding=found(category, accuracy, **more))


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [(None, "easy"), (0.0, "easy"), (0.49, "easy"), (0.5, "medium"), (0.85, "medium"), (0.86, "hard"), (1.0, "hard")],
)
def test_difficulty_follows_the_accuracy(accuracy: float | None, expected: str) -> None:
    assert choose_difficulty(accuracy) == expected


def test_examples_go_where_the_gain_is_over_an_even_floor() -> None:
    tracks = [track("high", gain=0.3), track("low", gain=0.1), track("none", gain=0.0)]
    counts = {one.category: one.count for one in plan_lessons(tracks, TeachSettings(examples=130, floor=10))}
    assert counts == {"high": 85, "low": 35, "none": 10}


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
