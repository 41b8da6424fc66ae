"""Grader `numeric`: the last number of the reply. It knows no units."""

from __future__ import annotations

import re
from decimal import Decimal, localcontext

from shammah_chassis.examples import Example
from shammah_chassis.grading.grade import Grade

TOLERANCE = Decimal("1e-6")
# A sign counts only where no word or number ends before it ("10-20" ends in 20); a digit inside a word
# ("H2O") is no number. U+2212 is the typographic minus. Exponents are short, so that no reply can ask for
# a huge number.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])(?P<sign>[-+\u2212])\s?)?"
    r"[$\u20ac\u00a3]?(?<![^\W\d])(?<![\d.])(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?P<exponent>[eE][+-]?\d{1,3}(?!\w))?",
    re.ASCII,
)


def find_numbers(text: str) -> list[Decimal]:
    """Return the numbers of `text` in order; commas between thousands are stripped."""
    return [_to_decimal(match) for match in _NUMBER.finditer(text)]


def _to_decimal(match: re.Match[str]) -> Decimal:
    sign = "-" if match["sign"] in ("-", "\u2212") else ""
    return Decimal(sign + match["digits"].replace(",", "") + (match["exponent"] or ""))


def grade_numeric(response: str, example: Example) -> Grade:
    """Good when the last number of the reply is the last of the reference, absolute tolerance 1e-6."""
    expected = find_numbers(example.reference)
    if not expected:
        return Grade(None, example.grader, "the reference holds no number")
    found = find_numbers(response)
    if not found:
        return Grade(False, example.grader, "the reply holds no number")
    if are_close(found[-1], expected[-1]):
        return Grade(True, example.grader, f"last number {found[-1]}")
    return Grade(False, example.grader, f"last number {found[-1]}, not {expected[-1]}")


def are_close(left: Decimal, right: Decimal) -> bool:
    """Return whether two numbers differ by at most 1e-6 (exact for numbers of up to 60 digits)."""
    with localcontext(prec=60):
        return left == right or abs(left - right) <= TOLERANCE
