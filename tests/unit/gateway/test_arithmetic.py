from __future__ import annotations

from fractions import Fraction

import pytest
from shammah_gateway.arithmetic import compute, find_error


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("What is 12 * (3 + 4)?", 84),
        ("12+7=", 19),
        ("Calculate 3 x 4.", 12),
        ("please compute: 1,200 - 1", 1199),
        ("How much is 7 \u00d7 8 \u00f7 2 = ?", 28),
        ("2^10", 1024),
        ("What's -3 - -4?", 1),
        ("What is the result of 10 / 4?", Fraction(5, 2)),
        ("0.1 + 0.2", Fraction(3, 10)),
    ],
)
def test_plain_expressions_are_computed_exactly(query: str, value: Fraction | int) -> None:
    assert compute(query) == value


@pytest.mark.parametrize(
    "query",
    [
        "What is 42?",
        "Tom has 3 apples and buys 4. How many?",
        "What is 15% of 80?",
        "__import__('os').system('true')",
        "(1).__class__",
        "1 if 2 else 3",
        "1/0",
        "9**9**9**9",
        "2**65",
        "10**64*10**64*" * 40 + "1",
        "What is 2024-11-22?",
        "1 +",
        "((((1+2)",
        "[1+2]",
        "1,2 + 3",
        "5 // 2",
        "007 + 1",
        "",
    ],
)
def test_anything_else_is_left_alone(query: str) -> None:
    assert compute(query) is None
    assert find_error(query, "12") == ""


@pytest.mark.parametrize(
    ("query", "response"), [("10/3", "3.33"), ("10/3", "about 3.3"), ("6*7", "It is 42."), ("6*7", "42.0")]
)
def test_a_right_or_rightly_rounded_response_passes(query: str, response: str) -> None:
    assert find_error(query, response) == ""


@pytest.mark.parametrize(("query", "response"), [("10/3", "3.34"), ("10/3", "3"), ("6*7", "43"), ("6*7", "42.1")])
def test_a_wrong_response_is_told_with_the_value(query: str, response: str) -> None:
    assert find_error(query, response).startswith("computed, it is")
