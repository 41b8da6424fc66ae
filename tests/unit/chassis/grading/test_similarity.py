from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray
from shammah_chassis.grading import grade, grade_many
from shammah_chassis.grading.similarity import find_difference
from support.example_values import make_example


class BagOfWords:
    """A small real encoder: each word adds its own fixed random vector."""

    def __init__(self) -> None:
        self.calls = 0

    def embed(self, texts: list[str], /) -> NDArray[np.float32]:
        self.calls += 1
        return np.stack([self._embed(text) for text in texts]).astype(np.float32)

    def _embed(self, text: str) -> NDArray[np.float64]:
        row = np.zeros(64)
        for word in text.lower().replace(".", "").split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            row += np.random.default_rng(seed).normal(size=64)
        return row


@pytest.mark.parametrize(
    ("response", "reference", "difference"),
    [
        ("the answer is 4", "the answer is 4.0", ""),
        ("the answer is 4", "the answer is 5", "numbers"),
        ("the answer is four", "the answer is 4", ""),
        ("the answer is four", "the answer is five", "numbers"),
        ("it does not work", "it does work", "negations"),
        ("it isn't ready", "it is not ready", ""),
        ("it isn\u2019t ready", "it is ready", "negations"),
        ("the capital is Paris", "the capital is London", "names"),
        ("The capital is Paris", "Paris is the capital", ""),
        ("Paris.", "London.", "names"),
        ("Plants need light. It is vital.", "Light is vital for plants.", ""),
        ("In May, Ann left.", "Ann left in May", ""),
    ],
)
def test_numbers_negations_and_names_must_agree(response: str, reference: str, difference: str) -> None:
    found = find_difference(response, reference)
    assert difference in found
    assert bool(found) is bool(difference)
    example = make_example(response=reference, grader="similarity")
    if difference:
        assert grade(response, example, similarity=BagOfWords()).good is False


@pytest.mark.parametrize(
    ("response", "good"),
    [
        ("on the warm roof the cats sleep", True),
        ("the cats sleep on the warm warm roof", True),
        ("water boils when it is hot", False),
    ],
)
def test_the_cosine_must_be_high(response: str, good: bool) -> None:
    example = make_example(response="the cats sleep on the warm roof", grader="similarity")
    outcome = grade(response, example, similarity=BagOfWords())
    assert (outcome.good, outcome.detail[:6]) == (good, "cosine")


def test_without_a_model_there_is_no_evidence_of_likeness() -> None:
    example = make_example(response="the sky is blue", grader="similarity")
    assert grade("the sky is blue", example).good is None
    assert grade("the sky is 5 blue", example).good is False


def test_a_zero_vector_is_like_nothing() -> None:
    example = make_example(response="...", grader="similarity")
    assert grade(".", example, similarity=BagOfWords()).good is False


def test_many_texts_are_embedded_in_one_call() -> None:
    model = BagOfWords()
    example = make_example(response="the sky is blue", grader="similarity")
    grades = grade_many([("the sky is blue", example), ("dogs bark", example)], similarity=model)
    assert [item.good for item in grades] == [True, False]
    assert model.calls == 1
