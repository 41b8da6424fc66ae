from __future__ import annotations

import pytest
from shammah_gateway.teachers.difficulty import order_thirds, rate_queries, split_thirds


def test_longer_queries_and_rarer_words_are_harder() -> None:
    rated = rate_queries(["the sky", "the sky", "the sky and the sea", "the zygote"])
    assert rated[0] == rated[1] < rated[3] and rated[0] < rated[2]
    assert all(0 <= value <= 1 for value in rated)


def test_no_rows_and_one_row_have_their_thirds() -> None:
    assert rate_queries([]) == [] and split_thirds([]) == ([], [], [])
    assert split_thirds(["one"]) == ([0], [], [])
    assert rate_queries(["", "!!"]) == [0.5, 0.5]


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_thirds_hold_every_row_once_and_so_does_their_order(count: int, difficulty: str) -> None:
    thirds = split_thirds([f"{'long ' * (index % 5)} w{index}" for index in range(count)])
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1
    ordered = order_thirds(thirds, difficulty)
    assert sorted(index for third in ordered for index in third) == list(range(count))
