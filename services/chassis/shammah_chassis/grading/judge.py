"""Grader `judge`: free text goes to the judge that the caller gives. It knows no teacher and no budget."""

from __future__ import annotations

from shammah_chassis.examples import Example
from shammah_chassis.grading.grade import Grade
from shammah_chassis.grading.protocols import Judge


def grade_by_judge(response: str, example: Example, judge: Judge | None) -> Grade:
    """Return the judge's verdict; ungraded when there is no judge or it could not say.

    A reply equal to the reference needs no judge: that saves a teacher call.
    """
    if response.strip() and response.strip() == example.reference.strip():
        return Grade(True, example.grader, "equal to the reference")
    if judge is None:
        return Grade(None, example.grader, "no judge was given")
    verdict = judge(response, example)
    return Grade(verdict.good, example.grader, verdict.reason)
