from __future__ import annotations

import pytest
from shammah_chassis.grading import grade
from support.example_values import make_example


@pytest.mark.parametrize("grader", ["exact", "label"])
@pytest.mark.parametrize(
    ("response", "good"),
    [("New  York\n", True), ("new york", True), ("New York.", False), ("It is New York", False), ("", False)],
)
def test_exact_ignores_case_and_whitespace_only(grader: str, response: str, good: bool) -> None:
    assert grade(response, make_example(response="New York", grader=grader)).good is good


@pytest.mark.parametrize(
    ("response", "good", "detail"),
    [
        ("14 December 1972", True, "strict"),
        ("It was on 14 December, 1972!", True, "lenient"),
        ("in 1972", True, "strict"),
        ("in 1973", False, "none of 2"),
        ("14 December 19721", False, "none of 2"),
        ("", False, "none of 2"),
    ],
)
def test_contains_tells_strict_from_lenient(response: str, good: bool, detail: str) -> None:
    example = make_example(grader="contains", answers=("14 December 1972", "In 1972"))
    outcome = grade(response, example)
    assert outcome.good is good
    assert detail in outcome.detail


def test_contains_looks_at_whole_tokens() -> None:
    assert grade("40", make_example(grader="contains", answers=("4",))).good is False


def test_answers_without_letters_are_no_evidence() -> None:
    assert grade("?", make_example(grader="contains", answers=("?!",))).good is None
    assert grade("", make_example(response="", rating=-1, grader="exact")).good is None
