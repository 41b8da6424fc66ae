from __future__ import annotations

import numpy as np
import pytest
from shammah_gateway.teachers.word_vectors import PLACES, embed_words


def test_what_shares_words_lies_near_and_rare_words_weigh_more() -> None:
    told = ["turn the lamp on", "turn the lamp off", "when does the train leave", "when does the bus leave"]
    vectors = embed_words(told)
    assert vectors.shape == (4, PLACES) and np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 4)
    near = vectors @ vectors.T
    assert near[0, 1] > 3 * abs(near[0, 2]) and near[2, 3] > 3 * abs(near[0, 3])
    common = embed_words(["the lamp", "the horn", *["the"] * 8])
    assert common[0] @ common[1] < 0.3


def test_a_query_without_words_and_no_queries_at_all_are_no_problem() -> None:
    assert not embed_words(["?!", "a word"])[0].any()
    assert embed_words([]).shape == (0, PLACES)
