from __future__ import annotations

import numpy as np
import pytest
from shammah_trainer.encoders.negatives import UNKNOWN, Pair, make_pairs
from shammah_trainer.encoders.results import TextRow

LABELLED = [TextRow(f"review {n}", "positive" if n % 2 else "negative", "sentiment") for n in range(20)]
FREE = [
    TextRow(f"where is it {n}", f"The house of {name} is {n + 10} metres from the lake of the town", "place")
    for n, name in enumerate(["Anna", "Berta", "Carl", "Dora", "Emil", "Fritz", "Greta", "Hans", "Ida", "Jan"])
]


def pairs_of(rows: list[TextRow], limit: int = 400) -> list[Pair]:
    return make_pairs(rows, limit=limit, generator=np.random.default_rng(0))


def test_every_teacher_response_is_a_clean_positive() -> None:
    teacher = [pair for pair in pairs_of(LABELLED + FREE) if pair.kind == "teacher"]
    assert len(teacher) == 30
    assert all(pair.targets == (1.0, 1.0, 0.0) for pair in teacher)


def test_another_label_of_the_category_is_on_topic_and_false() -> None:
    swapped = [pair for pair in pairs_of(LABELLED) if pair.kind == "label"]
    truth = {row.query: row.response for row in LABELLED}
    assert swapped
    assert all(pair.response != truth[pair.query] and pair.targets == (1.0, 1.0, 1.0) for pair in swapped)
    assert not [pair for pair in pairs_of(LABELLED) if pair.kind == "same"]


def test_free_answers_are_spoilt_in_every_way_and_labelled_for_that_alone() -> None:
    pairs = pairs_of(FREE * 4 + LABELLED)
    kinds = {pair.kind: pair.targets for pair in pairs}
    assert set(kinds) == {"teacher", "label", "same", "other", "cut", "shuffled", "number", "name"}
    assert kinds["same"] == kinds["other"] == (0.0, 1.0, UNKNOWN)
    assert kinds["cut"] == kinds["shuffled"] == (1.0, 0.0, UNKNOWN)
    assert kinds["number"] == kinds["name"] == (1.0, 1.0, 1.0)


def test_a_negative_always_differs_from_the_response_it_was_made_of() -> None:
    truth = {row.query: row.response for row in FREE}
    for pair in pairs_of(FREE):
        if pair.kind != "teacher":
            assert pair.response != truth[pair.query]
        if pair.kind == "cut":
            assert truth[pair.query].startswith(pair.response)
        if pair.kind == "shuffled":
            assert sorted(pair.response.split()) == sorted(truth[pair.query].split())


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_the_limit_of_pairs_holds(limit: int) -> None:
    assert len(pairs_of(FREE, limit)) == limit


def test_the_same_seed_makes_the_same_pairs() -> None:
    assert pairs_of(FREE) == pairs_of(FREE)
