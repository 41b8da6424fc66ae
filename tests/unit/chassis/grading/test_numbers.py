from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shammah_chassis.grading import grade
from shammah_chassis.grading.numbers import find_numbers
from support.example_values import make_example


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234.5 and 7.", ["1234.5", "7"]),
        ("from 10-20", ["10", "20"]),
        ("x = -3", ["-3"]),
        ("-$5", ["-5"]),
        ("\u22124", ["-4"]),
        ("1, 2,3", ["1", "2", "3"]),
        ("H2O has 3 atoms", ["3"]),
        ("1e3 5% .5", ["1e3", "5", "0.5"]),
        ("**42**", ["42"]),
        ("5kg", ["5"]),
        ("none", []),
        ("1e999999999", ["1"]),
    ],
)
def test_numbers_are_found_in_order(text: str, numbers: list[str]) -> None:
    assert [str(n) for n in find_numbers(text)] == [str(find_numbers(n)[0]) for n in numbers]


@given(st.integers(-(10**30), 10**30))
def test_a_number_is_itself_with_or_without_commas(value: int) -> None:
    example = make_example(response=str(value), grader="numeric")
    assert grade(f"So the answer is {value:,}.", example).good is True
    assert grade(f"{value + 1}", example).good is False


@given(st.text(max_size=200))
def test_any_text_can_be_searched_for_numbers(text: str) -> None:
    assert all(number.is_finite() for number in find_numbers(text))


@pytest.mark.parametrize(
    ("response", "good"),
    [
        ("72", True),
        ("8 * 9 = 72.0", True),
        ("72.0000009", True),
        ("72.000002", False),
        ("72, not 71", False),
        ("seventy-two", False),
        ("-72", False),
    ],
)
def test_the_last_number_of_the_reply_counts(response: str, good: bool) -> None:
    assert grade(response, make_example(response="72", grader="numeric")).good is good


def test_a_reference_without_a_number_is_no_evidence() -> None:
    assert grade("72", make_example(response="many", grader="numeric")).good is None
