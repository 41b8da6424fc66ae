from __future__ import annotations

import pytest
from shammah_chassis.grading import grade
from support.example_values import make_example

REFERENCE = '{"name": "Book", "arguments": {"city": "Paris", "people": 2, "tags": ["a", "b"]}}'


@pytest.mark.parametrize(
    ("response", "good"),
    [
        (REFERENCE, True),
        ('{"arguments":{"tags":["A","b"],"people":2.0,"city":"PARIS"},"name":"book"}', True),
        (f"Here it is:\n```json\n{REFERENCE}\n```\nDone.", True),
        (REFERENCE.replace("2", '"2"'), False),
        (REFERENCE.replace('"a", "b"', '"b", "a"'), False),
        (REFERENCE.replace("2", "true"), False),
        (REFERENCE.replace('"city"', '"City"'), False),
        (REFERENCE + " ok", False),
        ("", False),
        ("[" * 100_000, False),
        ("NaN", False),
    ],
)
def test_json_is_compared_by_value(response: str, good: bool) -> None:
    assert grade(response, make_example(response=REFERENCE, grader="json")).good is good


def test_true_is_not_one() -> None:
    assert grade("true", make_example(response="1", grader="json")).good is False
    assert grade("1.0", make_example(response="1", grader="json")).good is True


def test_a_reference_that_is_no_json_is_no_evidence() -> None:
    assert grade("1", make_example(response="not json", grader="json")).good is None


ACCEPTED = {
    "calculus.derivative": {
        "function": ["2x**2", "lambda x: 2x**2"],
        "value": [1],
        "variable": ["x", ""],
        "points": [[1, 2], ""],
        "options": [{"step": [0.1, 0.2], "method": ["exact", ""]}, ""],
    }
}


@pytest.mark.parametrize(
    ("arguments", "good"),
    [
        ('{"function": "2X**2", "value": 1.0}', True),
        ('{"function": "lambda x: 2x**2", "value": 1, "variable": "x", "points": [1, 2]}', True),
        ('{"function": "2x**2", "value": 1, "options": {"step": 0.2}}', True),
        ('{"function": "2x**2", "value": 1, "options": {"step": 0.3}}', False),
        ('{"function": "2x**2", "value": 1, "options": {"step": 0.1, "other": 1}}', False),
        ('{"function": "2x**2", "value": 1, "points": [2, 1]}', False),
        ('{"function": "2x**2"}', False),
        ('{"function": "2x**2", "value": 1, "extra": 1}', False),
        ('{"function": "3x", "value": 1}', False),
        ("[]", False),
    ],
)
def test_a_call_may_use_any_accepted_value(arguments: str, good: bool) -> None:
    example = make_example(grader="json", accepted=ACCEPTED)
    reply = f'{{"name": "calculus.derivative", "arguments": {arguments}}}'
    outcome = grade(reply, example)
    assert (outcome.good, bool(outcome.detail)) == (good, True)


def test_no_accepted_value_means_the_empty_list() -> None:
    example = make_example(grader="json", accepted={"f": {"x": []}})
    assert grade('{"name": "f", "arguments": {"x": []}}', example).good is True
    assert grade('{"name": "f", "arguments": {"x": [1]}}', example).good is False


@pytest.mark.parametrize(
    "reply",
    [
        '{"name": "other", "arguments": {}}',
        '{"name": "calculus.derivative"}',
        '{"name": ["calculus.derivative"], "arguments": {}}',
        "[1]",
    ],
)
def test_another_form_of_call_is_bad(reply: str) -> None:
    assert grade(reply, make_example(grader="json", accepted=ACCEPTED)).good is False
