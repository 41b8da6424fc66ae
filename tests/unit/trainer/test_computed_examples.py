"""Further examples of what is computed: right, new, in the shapes that were seen."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from shammah_chassis.examples import Example, Message, Provenance
from shammah_chassis.grading import grade
from shammah_chassis.text import normalise_query
from shammah_trainer.computed_examples import compute_examples


def example(query: str, response: str, *, category: str = "sums", grader: str = "numeric") -> Example:
    return Example(
        query=(Message("user", query),),
        response=response,
        reference=response,
        category=category,
        grader=grader,
        provenance=Provenance(origin="dataset"),
    )


SUMS = [
    example("What is 312 plus 41.5?", "353.5"),
    example("What is -7 plus 12.25?", "5.25"),
    example("What is 1000 plus 0.003?", "1000.003"),
]


def test_sums_have_further_sums_that_are_right() -> None:
    found = compute_examples(SUMS, count=20, seed=0)
    assert [len(own) for own in found] == [20, 20, 20]
    queries = [made.query_text for own in found for made in own]
    assert len(set(queries)) == 60
    for own in found:
        for made in own:
            first, second = made.query_text.removeprefix("What is ").removesuffix("?").split(" plus ")
            assert Fraction(first) + Fraction(second) == Fraction(made.response)
            assert made.reference == made.response
            assert (made.category, made.grader, made.provenance) == ("sums", "numeric", SUMS[0].provenance)
            assert grade(made.response, made).good


def test_the_same_seed_makes_the_same() -> None:
    assert compute_examples(SUMS, count=5, seed=1) == compute_examples(SUMS, count=5, seed=1)
    assert compute_examples(SUMS, count=5, seed=1) != compute_examples(SUMS, count=5, seed=2)


def test_no_query_is_taken_or_known() -> None:
    digits = [example(f"{a}*{b}=", str(a * b)) for a in range(2, 10) for b in range(2, 10) if a + b < 16]
    known = {normalise_query(row.query_text) for row in digits}
    free = {made.query_text for own in compute_examples(digits, count=9, seed=0) for made in own}
    assert free
    assert not known & {normalise_query(query) for query in free}
    taken = {normalise_query(query) for query in free}
    again = compute_examples(digits, count=9, seed=0, taken=taken)
    assert not taken & {normalise_query(made.query_text) for own in again for made in own}


def test_shapes_are_kept() -> None:
    rows = [example(f"Convert {a} km to m.", b) for a, b in (("0.0417", "41.7"), ("3.25", "3250"), ("17.083", "17083"))]
    numbers = {made.query_text.split()[1] for own in compute_examples(rows, count=30, seed=0) for made in own}
    shapes = {(len(whole), len(decimals)) for whole, _, decimals in (number.partition(".") for number in numbers)}
    assert shapes <= {(1, 4), (1, 2), (2, 3)}
    assert not any(number.endswith("0") or number.startswith("00") for number in numbers)


def test_clock_times_and_words_are_drawn() -> None:
    clock = [
        example("What is 144 minutes before 6:34 AM?", "4:10 AM", grader="exact"),
        example("What is 665 minutes before 5:09 AM?", "6:04 PM", grader="exact"),
    ]
    words = [
        example("What is seven sixteenths of an hour in seconds?", "1575"),
        example("What is twenty-five halves of an hour in seconds?", "45000"),
        example("What is seven tenths of an hour in seconds?", "2520"),
    ]
    for own in compute_examples([*clock, *words], count=4, seed=0):
        assert len(own) == 4


@pytest.mark.parametrize(
    "rows",
    [
        [replace(row, category=f"sums {number}") for number, row in enumerate(SUMS)],
        [replace(row, grader="label") for row in SUMS],
        [replace(row, response=f"It is {row.response}.") for row in SUMS],
        [*SUMS, example("What is 2 plus 2?", "5")],
        [replace(row, query=(Message("user", "x" * 2000 + row.query_text),)) for row in SUMS],
        [example("Chapter 12 of volume 4 of part 3 of book 7 is on page?", "353.5"), *SUMS[:1]],
    ],
    ids=["each alone", "labels", "sentences", "contradiction", "long", "too many values"],
)
def test_other_rows_have_none(rows: list[Example]) -> None:
    assert compute_examples(rows, count=4, seed=0) == [()] * len(rows)


def test_numbers_of_earlier_messages_are_part_of_the_wording() -> None:
    def told(rate: str, query: str, response: str) -> Example:
        row = example(query, response)
        return replace(row, query=(Message("system", f"One coin is {rate} cents."), *row.query))

    rows = [
        *(told("5", f"{coins} coins?", str(5 * coins)) for coins in (312, 1741, 29)),
        *(told("25", f"{coins} coins?", str(25 * coins)) for coins in (44, 1377, 618)),
    ]
    for row, own in zip(rows, compute_examples(rows, count=6, seed=0), strict=True):
        rate = 25 if "25" in row.query[0].content else 5
        assert own
        assert all(int(made.response) == rate * int(made.query[-1].content.split()[0]) for made in own)


def test_few_numbers_of_a_shape_give_few_rows_and_come_to_an_end() -> None:
    rows = [example(f"Square of {number}?", str(number * number)) for number in range(2, 10)]
    found = compute_examples(rows, count=50, seed=0)
    assert sum(map(len, found)) <= 2
