"""Formulas are found where all answers follow one, and not where chance could have made them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shammah_trainer import number_words
from shammah_trainer.formulas import VALUE, Formula, Product, Value, find_formulas


def values(*texts: str) -> tuple[Value, ...]:
    found = tuple(value for text in texts if (value := Value.read(text)) is not None)
    assert len(found) == len(texts)
    return found


def find(*rows: tuple[tuple[str, ...], str]) -> list[Formula]:
    return find_formulas([(values(*texts), answer) for texts, answer in rows])


def ask(formulas: list[Formula], *texts: str) -> set[str | None]:
    """Return what the formulas say; the tests want them to agree."""
    given_ = (formula(values(*texts)) for formula in formulas)
    return {None if answer is None else answer.write() for answer in given_}


@pytest.mark.parametrize(
    ("rows", "asked", "answer"),
    [
        ([(("3.25", "41"), "133.25"), (("-0.7", "12"), "-8.4"), (("90", "7"), "630")], ("0.5", "6"), "3"),
        ([(("312", "-41.5"), "270.5"), (("7", "12.25"), "19.25"), (("0", "18.5"), "18.5")], ("0.1", "0.2"), "0.3"),
        ([(("312", "41.5"), "270.5"), (("7", "12.25"), "5.25"), (("0", "18.5"), "18.5")], ("1", "9"), "8"),
        ([(("3.2",), "3200"), (("0.0417",), "41.7"), (("71.305",), "71305")], ("0.5",), "500"),
        ([(("7", "8"), "87500"), (("3", "16"), "18750"), (("5", "2"), "250000")], ("1", "4"), "25000"),
        ([(("3.14159", "2"), "3.14"), (("2.71828", "3"), "2.718"), (("9.96", "1"), "10")], ("0.456", "1"), "0.5"),
        ([(("-2253.1",), "-2300"), (("389.7",), "400"), (("61187",), "61200")], ("149",), "100"),
        ([(("1264", "100"), "1300"), (("98.7", "10"), "100"), (("52491", "1000"), "52000")], ("777", "50"), "800"),
        ([(("7:56 PM", "10:34 PM"), "158"), (("8:50 PM", "3:24 AM"), "394")], ("11:59 AM", "12:00 PM"), "1"),
        ([(("144", "6:34 AM"), "4:10 AM"), (("665", "5:09 AM"), "6:04 PM")], ("60", "12:30 AM"), "11:30 PM"),
        ([(("three quarters",), "4500"), (("twenty-five halves",), "75000"), (("seven sixteenths",), "2625")],
         ("two thirds",), "4000"),
    ],
)  # fmt: skip
def test_formulas_are_read_off_their_answers(
    rows: list[tuple[tuple[str, ...], str]], asked: tuple[str, ...], answer: str
) -> None:
    found = find(*rows)
    assert found
    assert ask(found, *asked) == {answer}


def test_one_wrong_answer_leaves_none() -> None:
    assert find((("3.2",), "3200"), (("0.0417",), "41.7"), (("71.305",), "71305"))
    assert find((("3.2",), "3200"), (("0.0417",), "41.7"), (("71.305",), "71306")) == []


def test_few_digits_prove_nothing() -> None:
    assert find((("2", "2"), "4"), (("3", "3"), "9")) == []
    assert find((("3",), "6"), (("4",), "8")) == []
    assert find((("3.217",), "3217")) == []
    # The same answer again is no further evidence.
    assert find((("3.217",), "3217"), (("3.217",), "3217")) == []


def test_what_the_rows_leave_open_is_left_open() -> None:
    found = find((("1234", "1"), "1234"), (("98765", "1"), "98765"))
    assert ask(found, "50", "2") >= {"100", "25", "50"}


@pytest.mark.parametrize("answer", ["about 3", "3,200", "", "1e5", "three"])
def test_answers_that_are_no_values_have_no_formula(answer: str) -> None:
    assert find((("3.2",), "3200"), (("71.305",), "71305"), (("5",), answer)) == []


def test_division_by_zero_and_halves_have_no_answer() -> None:
    assert Product((1, -1))(values("3", "0")) is None
    rounding = find((("2.71828", "3"), "2.718"), (("9.9601", "2"), "9.96"))
    assert ask(rounding, "0.25", "1") == {None}
    assert ask(rounding, "0.25", "99") == {None}


def test_numbers_that_do_not_end_are_not_written() -> None:
    assert Value(Fraction(1, 3)).write() is None
    assert Value(Fraction(-1, 8)).write() == "-0.125"
    assert Value(Fraction(10**20)).write() == "1" + "0" * 20


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_numbers_are_written_as_they_are_read(number: object) -> None:
    found = Value(Fraction(str(number)))
    written = found.write()
    assert written is not None
    assert Value.read(written) == found


@given(st.integers(0, 24 * 60 - 1))
def test_clock_times_are_written_as_they_are_read(minute: int) -> None:
    written = Value(Fraction(minute), clock=True).write()
    assert written is not None
    assert Value.read(written) == Value(Fraction(minute), clock=True)


@given(st.integers(1, number_words.MOST), st.sampled_from([2, 3, 4, 8, 10, 16, 20, 25, 100]))
def test_fractions_in_words_are_written_as_they_are_read(numerator: int, denominator: int) -> None:
    written = number_words.write_fraction(numerator, denominator)
    assert number_words.split_fraction(written) == (numerator, denominator)
    assert Value.read(written) == Value(Fraction(numerator, denominator))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Convert 1.5km to m.", ["1.5"]),
        ("12-5 and 3--4", ["12", "5", "3", "-4"]),
        ("at 7:56 PM, not 17:30", ["7:56 PM"]),
        ("v1.2.3 of a4 costs 1,000", []),
        ("What is seven eighths of 2/3?", ["seven eighths", "2", "3"]),
    ],
)
def test_values_are_found_in_texts(text: str, found: list[str]) -> None:
    assert [match[0] for match in VALUE.finditer(text)] == found
