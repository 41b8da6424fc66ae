from __future__ import annotations

import pytest
from shammah_chassis.text import normalise_query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  What's  2+2 ?\n", "what s 2 + 2"),
        ("\uff21\uff22\uff23\u3000\ufb01ne", "abc fine"),
        ("5% of $3 <= x", "5 % of $ 3 < = x"),
        ("snake_case", "snake case"),
        ("Größe Été 東京", "größe été 東京"),
        ("?!… 🙂", ""),
    ],
)
def test_a_query_is_reduced_to_its_tokens(text: str, expected: str) -> None:
    assert normalise_query(text) == expected


def test_normalising_twice_changes_nothing() -> None:
    once = normalise_query("A-B * c/d = 10 % of $5, Straße!")
    assert normalise_query(once) == once
