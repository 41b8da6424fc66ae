from __future__ import annotations

import pytest
from shammah_gateway.certificate import foreign_share, is_uncertified


@pytest.mark.parametrize(
    "text", ["What is 2 + 2?", "Grüße aus Köln, naïve café", "12 + 7 = ?", "", "The Greek letter π"]
)
def test_latin_script_and_plain_signs_are_inside(text: str) -> None:
    assert not is_uncertified(text, 0.0)


@pytest.mark.parametrize("text", ["Привет, как дела", "東京はどこですか", "מה השעה", "hi 你好吗朋友们"])
def test_another_script_is_outside(text: str) -> None:
    assert is_uncertified(text, 0.0)


def test_a_sampled_answer_is_outside() -> None:
    assert is_uncertified("What is 2 + 2?", 0.01)


def test_the_share_counts_letters_only() -> None:
    assert foreign_share("a д 123 !!") == 0.5
