from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shammah_generator.prefix_cache import BLOCK_TOKENS, PrefixCache
from support.generating import ScriptedModel

BLOCK_BYTES = BLOCK_TOKENS * 8  # the scripted model keeps one int64 for each token


@pytest.fixture(scope="module")
def model(folder):
    return ScriptedModel(folder)


def compute(model, cache, prompt, *, slot=4):
    """Compute a prompt as the engine does; returns how many tokens were there already."""
    past = cache.restore(slot, prompt)
    assert model.held[slot][:past] == prompt[:past]
    model.prefill(slot, prompt[past:], past=past)
    cache.keep(slot, prompt)
    return past


def prompt_of(name, blocks, rest=3):
    return [3 + (name * 37 + place) % 500 for place in range(blocks * BLOCK_TOKENS + rest)]


def test_a_beginning_is_kept_from_its_second_use_and_restored_from_its_third(model):
    cache = PrefixCache(model, budget_bytes=1 << 20)
    shared = prompt_of(1, 3)
    assert [compute(model, cache, [*shared, number]) for number in range(4)] == [0, 0, 48, 48]
    assert cache.reused_tokens == 96
    assert cache.kept_bytes == 3 * BLOCK_BYTES


def test_only_what_is_alike_from_the_start_is_restored(model):
    cache = PrefixCache(model, budget_bytes=1 << 20)
    first = prompt_of(1, 4)
    for _ in range(2):
        compute(model, cache, first)
    other = list(first)
    other[2 * BLOCK_TOKENS + 5] += 1
    assert compute(model, cache, other) == 2 * BLOCK_TOKENS
    assert compute(model, cache, [9, *first]) == 0


def test_at_least_one_token_is_left_to_compute(model):
    cache = PrefixCache(model, budget_bytes=1 << 20)
    whole = prompt_of(2, 2, rest=0)
    assert [compute(model, cache, whole) for _ in range(3)] == [0, 0, BLOCK_TOKENS]


def test_the_beginning_used_longest_ago_goes_first_when_the_budget_is_full(model):
    cache = PrefixCache(model, budget_bytes=2 * BLOCK_BYTES)
    first, second, third = (prompt_of(name, 1) for name in (1, 2, 3))
    for prompt in (first, first, second, second):
        compute(model, cache, prompt)
    assert compute(model, cache, first) == BLOCK_TOKENS  # used again: now the second is the oldest
    for _ in range(2):
        compute(model, cache, third)
    assert cache.kept_bytes == 2 * BLOCK_BYTES
    assert [cache.restore(4, prompt) for prompt in (first, second, third)] == [BLOCK_TOKENS, 0, BLOCK_TOKENS]


@pytest.mark.parametrize("budget", [0, BLOCK_BYTES - 1])
def test_without_room_nothing_is_kept(model, budget):
    cache = PrefixCache(model, budget_bytes=budget)
    assert [compute(model, cache, prompt_of(1, 2)) for _ in range(4)] == [0] * 4
    assert (cache.kept_bytes, cache.reused_tokens) == (0, 0)


@settings(deadline=None, max_examples=60)
@given(
    prompts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 20)), max_size=40),
    blocks=st.integers(1, 6),
)
def test_whatever_is_asked_the_slot_holds_the_prompt_and_the_budget_is_kept(model, prompts, blocks):
    cache = PrefixCache(model, budget_bytes=blocks * BLOCK_BYTES + 5)
    reused = 0
    for name, length, rest in prompts:
        prompt = prompt_of(name, length, rest)
        reused += compute(model, cache, prompt)
        assert model.held[4] == prompt
        assert cache.kept_bytes <= blocks * BLOCK_BYTES + 5
    assert cache.reused_tokens == reused


def test_what_a_real_model_computes_behind_a_kept_beginning_is_what_it_computes_afresh(folder, load):
    model = load(folder)
    cache = PrefixCache(model, budget_bytes=1 << 20)
    prompt = np.random.default_rng(0).integers(3, 512, 60).tolist()
    wanted = model.prefill(5, prompt).logits(0).copy()
    cache.keep(5, prompt)
    cache.keep(5, prompt)
    model.prefill(6, prompt[::-1])
    past = cache.restore(6, prompt)
    assert past == 48
    assert np.abs(model.prefill(6, prompt[past:], past=past).logits(0) - wanted).max() <= 1e-4
    assert cache.kept_bytes == 3 * BLOCK_TOKENS * 2 * 2 * 2 * 16 * 4  # layers, key and value, heads, numbers, bytes
