"""What repeats a generated example: a near query with nothing new in the response."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shammah_chassis.examples import Example, Message, Provenance
from shammah_chassis.repeats import RepeatFilter, repeats

MADE = Provenance(origin="synthetic", teacher="anthropic", teacher_model="m", source="generate")
OWN = replace(MADE, teacher="owner", teacher_model="")
QUERY = "please tell me right now whether the big red lamp in the old kitchen of the house is still on or already off"
NEAR = QUERY + ", please"


def make(query: str, response: str, *, grader: str = "label", provenance: Provenance = MADE) -> Example:
    return Example(
        query=(Message("user", query),), response=response, category="lamps", grader=grader, provenance=provenance
    )


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (make(NEAR, "Yes."), True),
        (make(NEAR, "no"), False),
        # Free text is never the same words twice; who corrects it by hand means it.
        (make(NEAR, "It is.", grader="judge"), True),
        (make(NEAR, "It is.", grader="judge", provenance=OWN), False),
        (make(NEAR, "yes", grader="judge", provenance=OWN), True),
        (make(NEAR, "yes", provenance=replace(MADE, origin="teacher")), False),
    ],
)
def test_a_near_query_repeats_unless_its_response_is_another(example: Example, expected: bool) -> None:
    held = RepeatFilter()
    assert not held.finds(example)
    held.add(make(QUERY, "yes"))
    assert held.finds(example) is repeats(example, [make(QUERY, "yes")]) is expected


def test_another_query_with_the_same_response_is_new() -> None:
    held = RepeatFilter()
    held.add(make(QUERY, "yes"))
    assert not held.finds(make("is the garage open", "yes"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("!!", "??"), ("C#", "C"), ("a != b", "a = b"), ("[1]", "1"), ("1.5", "1 5"), ('{"n": "a_b"}', '{"n": "a b"}')],
)
def test_signs_tell_responses_apart(one: str, other: str) -> None:
    assert not repeats(make(NEAR, one), [make(QUERY, other)])
    assert repeats(make(NEAR, one), [make(QUERY, f" {one}\n")])
