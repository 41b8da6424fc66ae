from __future__ import annotations

import pytest
from shammah_generator.prompts import PromptQueue
from shammah_generator.sampling import Sampling
from shammah_generator.sequence import GrowingResponse
from support.generating import ScriptedModel


@pytest.fixture
def model(folder):
    return ScriptedModel(folder, staging=3)


@pytest.fixture
def make(model):
    def respond(length, *, first=10):
        prompt = [3 + (first + place) % 500 for place in range(length)]
        return GrowingResponse(
            prompt,
            lambda _chunk: None,
            sampling=Sampling(),
            limit=8,
            tokenizer=model.tokenizer,
            ends=frozenset({2}),
            chunk_tokens=8,
        )

    return respond


def grow_all(prompts, *, alone=False):
    """Grow to the end; returns the responses in the order in which they were whole."""
    whole = []
    while prompts:
        grown = prompts.grow(alone=alone)
        if grown is not None:
            whole.append(grown[0])
    return whole


def list_pieces(model):
    return [(call[1], len(call[2]), call[3]) for call in model.calls if call[0] == "prefill"]


def test_a_prompt_is_computed_in_pieces_behind_each_other_in_a_staging_slot(model, make):
    prompts = PromptQueue(model, prefill_tokens=8, prefix_bytes=0)
    response = make(20)
    prompts.begin(response)
    assert prompts.grow(alone=False) is None
    assert prompts.grow(alone=False) is None
    found, slot, scores = prompts.grow(alone=False)
    assert found is response
    assert list_pieces(model) == [(slot, 8, 0), (slot, 8, 8), (slot, 4, 16)]
    assert slot >= model.slots
    assert model.held[slot] == response.prompt
    assert scores.tokens == model.prefill(slot, response.prompt).tokens


def test_two_long_prompts_take_turns_and_a_short_one_waits_for_neither(model, make):
    prompts = PromptQueue(model, prefill_tokens=8, prefix_bytes=0)
    long, other, short = make(40), make(40, first=60), make(8, first=90)
    prompts.begin(long)
    prompts.begin(other)
    prompts.grow(alone=False)
    prompts.begin(short)
    assert grow_all(prompts) == [short, long, other]
    slots = [slot for slot, _, _ in list_pieces(model)]
    first, second, third = dict.fromkeys(slots)
    # A piece each; who comes later waits one round for its turn.
    assert slots == [first, second, first, third, second, *[first, second] * 3][: len(slots)]


def test_pieces_are_larger_only_for_a_prompt_that_delays_nobody(model, make):
    prompts = PromptQueue(model, prefill_tokens=8, prefix_bytes=0)
    prompts.begin(make(600))
    grow_all(prompts, alone=True)
    assert [size for _, size, _ in list_pieces(model)] == [512, 88]
    model.calls.clear()
    for first in (0, 50):
        prompts.begin(make(20, first=first))
    prompts.grow(alone=True)
    prompts.grow(alone=True)
    assert [size for _, size, _ in list_pieces(model)] == [8, 8]


@pytest.mark.parametrize("way", ["drop", "drop_cancelled", "clear", "finish"])
def test_whichever_way_a_prompt_leaves_its_slot_is_free_again(model, make, way):
    prompts = PromptQueue(model, prefill_tokens=8, prefix_bytes=0)
    for _ in range(5):
        made = [make(20, first=50 * number) for number in range(3)]
        for response in made:
            prompts.begin(response)
        prompts.grow(alone=False)
        assert (prompts.free, len(prompts)) == (0, 3)
        if way == "drop":
            for response in made:
                prompts.drop(response)
        elif way == "drop_cancelled":
            made[1].handle.cancel()
            assert prompts.drop_cancelled() == [made[1]]
            assert (prompts.free, len(prompts)) == (1, 2)
            for response in made:
                response.handle.cancel()
            prompts.drop_cancelled()
        elif way == "clear":
            assert set(prompts.clear()) == set(made)
        else:
            assert set(grow_all(prompts)) == set(made)
        assert (prompts.free, len(prompts)) == (3, 0)
    assert {slot for slot, _, _ in list_pieces(model)} <= {4, 5, 6}


def test_only_what_was_not_kept_is_computed(model, make):
    prompts = PromptQueue(model, prefill_tokens=64, prefix_bytes=1 << 20)
    for _ in range(3):
        prompts.begin(make(40))
        grow_all(prompts)
    assert [(size, past) for _, size, past in list_pieces(model)] == [(40, 0), (40, 0), (8, 32)]
    assert prompts.prefixes.reused_tokens == 32
