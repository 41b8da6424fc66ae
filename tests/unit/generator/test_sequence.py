from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shammah_chassis.errors import ShammahError
from shammah_generator.chat import load_tokenizer
from shammah_generator.sampling import Sampling
from shammah_generator.sequence import GrowingResponse
from shammah_generator.stepping import Scores
from support.tiny import make_tiny_generator

ENDS = frozenset({0, 1, 2})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_tiny_generator(tmp_path_factory.mktemp("sequence")) / "tokenizer.json")


def score(tokens, *, first=0):
    """Return the scores of one row, in which each place has numbers of its own."""
    values = [(7 * place) % 13 + 0.25 for place in range(first, first + len(tokens))]
    return Scores(
        tokens=[list(tokens)],
        logprobs=[[-value for value in values]],
        entropies=[[2 * value for value in values]],
        margins=[[3 * value for value in values]],
        logits=lambda _row: np.zeros(512, np.float32),
    )


def begin(tokenizer, *, limit=100, chunk_tokens=4, stop=()):
    chunks = []
    sampling = Sampling(max_tokens=limit, stop=stop)
    made = GrowingResponse(
        [5, 6], chunks.append, sampling=sampling, limit=limit, tokenizer=tokenizer, ends=ENDS, chunk_tokens=chunk_tokens
    )
    return made, chunks


def grow(tokenizer, tokens, sizes, **settings):
    """Feed tokens in blocks of these sizes; returns all that came of it, but for where the chunks were cut."""
    response, chunks = begin(tokenizer, **settings)
    place, drawn, turn = 0, 0, 0
    while place < len(tokens) and not response.finished:
        block = tokens[place : place + sizes[turn % len(sizes)]]
        drawn += response.feed(score(block, first=place), 0)
        place, turn = place + len(block), turn + 1
    last = response.last_token
    ended = response.finished
    response.cancel()
    return {
        "drawn": drawn,
        "ended": ended,
        "last": None if ended else last,
        "text": "".join(chunk.text for chunk in chunks),
        "ids": [token for chunk in chunks for token in chunk.token_ids],
        "logprobs": [value for chunk in chunks for value in chunk.logprobs],
        "finish": chunks[-1].finish,
        "finishes": [chunk.finish is not None for chunk in chunks].count(True),
    }


# Ids up to 259 are single bytes: halves of characters, and bytes that never become one.
TOKENS = st.lists(st.integers(3, 259) | st.integers(3, 420) | st.sampled_from([0, 1, 2]), min_size=1, max_size=40)


@settings(deadline=None, max_examples=150)
@example(tokens=[5] * 12, sizes=[8], limit=12, chunk_tokens=3, stop=())
@example(tokens=[5] * 8 + [2, 7], sizes=[8], limit=30, chunk_tokens=3, stop=())
@example(tokens=[5] * 7 + [2], sizes=[8], limit=7, chunk_tokens=3, stop=())
@given(
    tokens=TOKENS,
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    limit=st.integers(1, 45),
    chunk_tokens=st.integers(1, 9),
    stop=st.sampled_from([(), (), ("a",), ("the", "e ")]),
)
def test_several_tokens_at_once_give_what_one_at_a_time_gives(tokenizer, tokens, sizes, limit, chunk_tokens, stop):
    options = {"limit": limit, "chunk_tokens": chunk_tokens, "stop": stop}
    alone = grow(tokenizer, tokens, [1], **options)
    assert grow(tokenizer, tokens, sizes, **options) == alone
    assert alone["finishes"] == 1
    assert len(alone["ids"]) <= limit
    assert not ENDS & set(alone["ids"])
    if not stop:
        wanted = next((place + 1 for place, token in enumerate(tokens) if token in ENDS), len(tokens))
        assert alone["drawn"] == min(wanted, limit)


def test_the_first_token_goes_out_at_once_and_then_as_many_as_a_chunk_holds(tokenizer):
    response, chunks = begin(tokenizer, chunk_tokens=3)
    for place in range(8):
        response.feed(score([40 + place], first=place), 0)
    assert [len(chunk.token_ids) for chunk in chunks] == [1, 3, 3]


def test_text_without_a_stop_string_is_made_only_when_it_is_sent(tokenizer):
    response, chunks = begin(tokenizer, chunk_tokens=100)
    response.feed(score([70]), 0)
    for place in range(1, 6):
        response.feed(score([70 + place], first=place), 0)
    assert len(chunks) == 1
    response.cancel()
    assert chunks[-1].text == tokenizer.decode(list(range(71, 76)))


def test_a_stop_string_is_found_in_the_middle_of_a_block(tokenizer):
    tokens = [tokenizer.token_to_id(letter) for letter in "abcdef"]
    response, chunks = begin(tokenizer, stop=("d",))
    assert response.feed(score(tokens), 0) == 4
    assert response.finished
    assert "".join(chunk.text for chunk in chunks) == "abc"
    assert chunks[-1].finish.statistics.length == 4


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("kind", ["logprobs", "entropies"])
def test_scores_that_are_not_numbers_are_an_error_and_no_token_of_theirs_is_taken(tokenizer, size, kind):
    response, chunks = begin(tokenizer)
    response.feed(score([7]), 0)
    scores = score([8] * size, first=1)
    getattr(scores, kind)[0][-1] = math.nan
    with pytest.raises(ShammahError, match="not numbers"):
        response.feed(scores, 0)
    response.fail(ShammahError("x"))
    assert [token for chunk in chunks for token in chunk.token_ids] == [7]
    assert chunks[-1].finish.statistics.length == 1
