"""Graders by text: `exact`, `label` and `contains`. They know nothing of meaning."""

from __future__ import annotations

from shammah_chassis.examples import Example
from shammah_chassis.grading.grade import Grade
from shammah_chassis.text import collapse_whitespace, normalise_query


def grade_exact(response: str, example: Example) -> Grade:
    """Good when response and reference are equal after strip, lower-case and whitespace collapse.

    `label` is the same rule: the reply is the label and nothing else, case-insensitive.
    """
    if not example.reference.strip():
        return Grade(None, example.grader, "the example has no reference")
    if collapse_whitespace(response) == collapse_whitespace(example.reference):
        return Grade(True, example.grader, "equal")
    return Grade(False, example.grader, f"not equal to {_shorten(example.reference)!r}")


def grade_contains(response: str, example: Example) -> Grade:
    """Good when the normalised reply equals (detail `strict`) or contains (`lenient`) an answer.

    Contains means whole tokens in a row: "4" is not in "40". Without `answers` the reference is the only answer.
    """
    answers = example.answers or (example.reference,)
    wanted = [normalised for answer in answers if (normalised := normalise_query(answer))]
    if not wanted:
        return Grade(None, example.grader, "no answer has a letter or a digit")
    reply = normalise_query(response)
    if reply in wanted:
        return Grade(True, example.grader, "strict")
    if any(f" {answer} " in f" {reply} " for answer in wanted):
        return Grade(True, example.grader, "lenient")
    return Grade(False, example.grader, f"none of {len(wanted)} answers is in the reply")


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
