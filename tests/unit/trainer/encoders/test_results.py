from __future__ import annotations

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.encoders.results import extend_labels, fold_of, is_held_out


def test_about_a_fifth_is_held_out_and_case_or_spaces_do_not_matter() -> None:
    held = [is_held_out(f"query number {number}") for number in range(2000)]
    assert 0.15 < sum(held) / len(held) < 0.25
    assert all(is_held_out(f"Query  NUMBER {n}!") == held[n] for n in range(50))


def test_folds_are_even_and_follow_the_query() -> None:
    folds = [fold_of(f"query {number}", 5) for number in range(1000)]
    assert all(150 < folds.count(fold) < 250 for fold in range(5))
    assert fold_of("Query 3", 5) == folds[3]


def test_known_labels_keep_their_slots() -> None:
    assert extend_labels(("b",), ["c", "a", "b", ""]) == ("b", "a", "c")


def test_more_categories_than_slots_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most 64"):
        extend_labels((), [f"c{number}" for number in range(65)])
