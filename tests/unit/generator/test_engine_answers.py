"""What must not change an answer: neighbours in the batch, the pieces of a prompt, and kept beginnings."""

from __future__ import annotations

import json
import shutil

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.examples import Message
from shammah_generator.chat import encode_prompt
from shammah_generator.constraint import Constraint
from shammah_generator.engine import Engine
from shammah_generator.requests import Request
from shammah_generator.sampling import Sampling
from support.generating import SECONDS, Collector, ask, outcome

CLEAR = 0.01  # nats: where the two likeliest are closer than that, rounding may decide
SYSTEM = "You answer questions about trains and tables in one short sentence, and you never book anything twice."
CARD = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture
def start(folder, load):
    engines = []

    def run(*, source=folder, prefill_tokens=64, prefix_bytes=0, **settings):
        model = load(source, **({"context": 200} | settings))
        engine = Engine(model, queue_limit=64, chunk_tokens=8, prefill_tokens=prefill_tokens, prefix_bytes=prefix_bytes)
        engines.append(engine)
        return engine, model

    yield run
    for engine in engines:
        engine.close(0)


def draw_requests(count):
    """Return requests with prompts and limits of every size."""
    random = np.random.default_rng(5)
    return [
        Request(
            prompt_ids=tuple(random.integers(3, 512, int(random.integers(1, 120))).tolist()),
            sampling=Sampling(max_tokens=int(random.integers(1, 40))),
        )
        for _ in range(count)
    ]


def explain(model, request, found, wanted):
    """Return whether two answers are the same, or part where the model all but tossed a coin."""
    pair = zip(found.token_ids, wanted.token_ids, strict=False)
    place = next((place for place, (one, other) in enumerate(pair) if one != other), None)
    if place is None and len(found.token_ids) == len(wanted.token_ids):
        return True
    common = found.token_ids[: min(len(found.token_ids), len(wanted.token_ids)) if place is None else place]
    return model.prefill(0, [*request.prompt_ids, *common]).margins[0][0] < CLEAR


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8_fast"])
def test_an_answer_does_not_depend_on_its_neighbours_nor_on_the_pieces_of_its_prompt(start, precision):
    requests = draw_requests(40)
    single, model = start(slots=1, precision=precision)
    alone = [single.generate_batch([request])[0] for request in requests]
    mixed, _ = start(slots=8, precision=precision, prefill_tokens=16)
    together = mixed.generate_batch(requests)
    assert all(map(explain, [model] * 40, requests, together, alone))
    same = sum(outcome(one) == outcome(other) for one, other in zip(together, alone, strict=True))
    assert same >= 38
    assert len({one.token_ids for one in alone}) > 30
    again, _ = start(slots=8, precision=precision, prefill_tokens=16)
    assert again.generate_batch(requests) == together


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_shared_beginning_is_computed_once_and_the_answers_stay_the_same(start, precision):
    requests = [
        Request(messages=(Message("system", SYSTEM), Message("user", f"{number} tables?")), sampling=Sampling())
        for number in range(8)
    ]
    plain, model = start(precision=precision)
    wanted = [plain.generate_batch([request])[0] for request in requests]
    assert (plain.reused_tokens, plain.prefix_bytes) == (0, 0)
    engine, _ = start(precision=precision, prefix_bytes=1 << 20)
    found = [engine.generate_batch([request])[0] for request in requests]
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
        assert one.statistics.prompt_tokens == other.statistics.prompt_tokens
    first, second = (encode_prompt(model.tokenizer, request.messages) for request in requests[:2])
    shared = next(place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])
    assert shared >= 32
    # Kept with the second prompt, used from the third on.
    assert engine.reused_tokens == 6 * (shared - shared % 16)


def test_kept_beginnings_stay_within_their_budget(start):
    budget = 5 * 16 * 2 * 2 * 2 * 16 * 4  # five blocks of 16 tokens
    engine, _ = start(prefix_bytes=budget)
    for request in draw_requests(12):
        for _ in range(2):
            engine.generate_batch([request])
            assert engine.prefix_bytes <= budget
    assert engine.prefix_bytes > budget / 2


@pytest.fixture
def spoiled(make_folder, tmp_path):
    """A version in which one token, once it is read, makes all that follows not a number."""
    folder = tmp_path / "spoiled"
    shutil.copytree(make_folder(tied=False, seed=3), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][77] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_prompt_that_the_model_cannot_compute_is_a_named_error_of_its_own(start, spoiled):
    engine, _ = start(source=spoiled)
    sound = [request for request in draw_requests(12) if 77 not in request.prompt_ids][:4]
    wanted = engine.generate_batch(sound)
    assert {one.reason for one in wanted} == {"length"} or all(one.error is None for one in wanted)
    broken = Request(prompt_ids=(5, 77, 6), sampling=Sampling(max_tokens=5))
    first, *found, last = engine.generate_batch([broken, *sound, broken])
    assert [outcome(one) for one in found] == [outcome(one) for one in wanted]
    for one in (first, last):
        assert one.reason == "error"
        assert isinstance(one.error, ShammahError)
        assert "not numbers" in one.error.message
    assert engine.session_failures == 0


def test_a_row_that_stops_being_numbers_ends_alone(start, spoiled):
    engine, model = start(source=spoiled)
    sound = [request for request in draw_requests(20) if 77 not in request.prompt_ids][:3]
    wanted = engine.generate_batch(sound)
    # Held to a text that has the token: it is drawn in a step that the others share.
    label = model.tokenizer.decode([77]) * 3
    forced = ask("x", constraint=Constraint(labels=(label,)), max_tokens=40)
    found, *others = engine.generate_batch([forced, *sound])
    assert (found.reason, found.token_ids) == ("error", (77,))
    assert "not numbers" in found.error.message
    assert [outcome(one) for one in others] == [outcome(one) for one in wanted]
    assert engine.session_failures == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constrained_response_shares_the_batch_with_free_ones(start, temperature):
    engine, _ = start(slots=3)
    free = [ask("book a table"), ask("who are you", temperature=1.0, seed=3)]
    wanted = [engine.generate_batch([request])[0] for request in free]
    card = Constraint(json_schema=json.dumps(CARD))
    held = ask("a card", constraint=card, temperature=temperature, seed=4, max_tokens=100)
    label = ask("yes or no?", constraint=Constraint(labels=("yes", "no")), temperature=temperature, seed=4)
    first, written, second, chosen = engine.generate_batch([free[0], held, free[1], label])
    assert [outcome(first), outcome(second)] == [outcome(one) for one in wanted]
    assert written.reason == chosen.reason == "stop"
    jsonschema.validate(json.loads(written.text), CARD)
    assert chosen.text in ("yes", "no")
    for one in (written, chosen):
        told = one.statistics.constraint
        assert told.forced_tokens > 0
        assert one.statistics.sum_logprob <= told.allowed_sum_logprob < 0
        assert one.statistics.sum_logprob < told.unconstrained_sum_logprob
    assert first.statistics.constraint is None


def test_a_schema_that_cannot_be_compiled_is_refused_at_once(start):
    engine, _ = start()
    broken = Constraint(json_schema='{"type": "strin"}')
    for action in (
        lambda: engine.compile(broken),
        lambda: engine.submit(ask("x", constraint=broken), Collector().take),
    ):
        with pytest.raises(InvalidInputError, match="can't be compiled"):
            action()
    assert engine.queued == 0


def test_a_constrained_response_cut_by_its_limit_says_so(start):
    engine, _ = start()
    collector = Collector()
    engine.submit(ask("x", constraint=Constraint(json_schema=json.dumps(CARD)), max_tokens=3), collector.take)
    assert collector.wait().reason == "length"
    assert len(collector.tokens) == 3
    engine.close(SECONDS)
