"""Who gets which turn of the engine: shown by the calls that a scripted model gets, never by a clock."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from shammah_chassis.errors import ShammahError
from shammah_generator.constraint import Constraint
from shammah_generator.engine import Engine
from shammah_generator.requests import Request
from shammah_generator.sampling import Sampling
from support.generating import SECONDS, Collector, ScriptedModel, outcome


@pytest.fixture
def start(folder):
    engines = []

    def run(*, queue_limit=16, prefill_tokens=8, prefix_bytes=0, chunk_tokens=1, reserved_slots=0, **settings):
        model = ScriptedModel(folder, **settings)
        engine = Engine(
            model,
            queue_limit=queue_limit,
            chunk_tokens=chunk_tokens,
            prefill_tokens=prefill_tokens,
            prefix_bytes=prefix_bytes,
            reserved_slots=reserved_slots,
        )
        engines.append(engine)
        return engine, model

    yield run
    for engine in engines:
        engine.close(0)


def ask(length, *, max_tokens=10, first=7, **sampling):
    """Return a request with a prompt of some tokens."""
    ids = tuple(3 + (first * 31 + place) % 500 for place in range(length))
    return Request(prompt_ids=ids, sampling=Sampling(max_tokens=max_tokens, **sampling))


def hold(engine, request):
    """Submit a request and hold the engine in it once it is a row; returns its collector and the gate."""
    gate = threading.Event()
    held = Collector(gate=gate, at=2)
    engine.submit(request, held.take)
    assert held.entered.wait(SECONDS)
    return held, gate


def test_a_long_prompt_lets_the_others_step_between_its_pieces(start):
    engine, model = start()
    running, gate = hold(engine, ask(5, max_tokens=60))
    long = Collector()
    engine.submit(ask(200, max_tokens=2), long.take)
    gate.set()
    long.wait()
    running.wait()
    calls = [call for call in model.calls if call[0] != "move"]
    _, *pieces = (place for place, call in enumerate(calls) if call[0] == "prefill")
    assert len(pieces) == 25
    for before, after in pairwise(pieces):
        assert [call[0] for call in calls[before + 1 : after]] == ["decode"]
    assert max(len(calls[place][2]) for place in pieces) == 8
    assert len(running.tokens) == 60


def test_two_long_prompts_grow_by_turns(start):
    engine, model = start()
    _, gate = hold(engine, ask(5, max_tokens=80))
    model.calls.clear()
    both = [Collector(), Collector()]
    for place, collector in enumerate(both):
        engine.submit(ask(80, first=20 * place + 1, max_tokens=1), collector.take)
    gate.set()
    for collector in both:
        collector.wait()
    slots = [call[1] for call in model.calls if call[0] == "prefill"]
    assert len(slots) == 20
    assert slots == slots[:2] * 10
    assert len(set(slots)) == 2


def test_a_prompt_is_computed_at_once_where_nobody_waits(start):
    engine, model = start()
    engine.generate_batch([ask(300, max_tokens=1)])
    assert [len(call[2]) for call in model.calls if call[0] == "prefill"] == [300]


def test_a_request_cancelled_while_its_prompt_is_computed_frees_its_place(start):
    engine, model = start(slots=4, staging=2)
    running, gate = hold(engine, ask(5, max_tokens=100))
    requests = [ask(80, first=place) for place in range(6)]
    # More of them than there are places: none would be left if one were lost.
    cancelled = [Collector() for _ in requests]
    handles = {
        request.prompt_ids[8]: engine.submit(request, collector.take)
        for request, collector in zip(requests, cancelled, strict=True)
    }

    def cancel(call):
        if call[0] == "prefill" and call[3] == 8:  # the second piece is under way
            handles[call[2][0]].cancel()

    model.before = cancel
    last = Collector()
    engine.submit(ask(8, max_tokens=3), last.take)
    gate.set()
    for collector in cancelled:
        assert (collector.wait().reason, collector.tokens) == ("cancelled", ())
    assert last.wait().reason == running.wait().reason == "length"
    assert max(call[3] for call in model.calls if call[0] == "prefill") == 8
    assert (engine.active, engine.queued) == (0, 0)


def test_prompts_wait_where_all_staging_slots_are_taken_and_all_are_answered(start):
    engine, model = start(slots=8, staging=2)
    requests = [ask(30, first=place) for place in range(20)]
    done = engine.generate_batch(requests)
    assert {one.reason for one in done} == {"length"}
    assert {call[1] for call in model.calls if call[0] == "prefill"} <= {8, 9}
    assert max(call[1] for call in model.calls if call[0] == "decode") > 2
    alone = [engine.generate_batch([request])[0] for request in requests]
    assert [outcome(one) for one in alone] == [outcome(one) for one in done]


def test_what_waits_in_the_background_waits_for_users_and_leaves_the_reserved_slots(start):
    engine, model = start(slots=4, reserved_slots=1, queue_limit=8)
    _, gate = hold(engine, ask(5, max_tokens=30))
    order = []

    def watch(name):
        collector = Collector()

        def take(chunk):
            if not collector.chunks:
                order.append(name)
            collector.take(chunk)

        return collector, take

    everyone = []
    for place in range(6):
        collector, take = watch("batch")
        everyone.append(collector)
        engine.submit(ask(5, first=place, max_tokens=10), take, background=True)
    for place in range(2):
        collector, take = watch("user")
        everyone.append(collector)
        engine.submit(ask(5, first=30 + place, max_tokens=10), take)
    gate.set()
    for collector in everyone:
        assert collector.wait().reason == "length"
    assert order[:2] == ["user", "user"]
    # Three users at first, the batch after them: the fourth slot is never the batch's.
    assert max(call[1] for call in model.calls if call[0] == "decode") == 3


def test_a_user_finds_the_reserved_slot_while_a_batch_fills_the_others(start):
    engine, model = start(slots=4, reserved_slots=1)
    gate = threading.Event()
    rollouts = [Collector(gate=gate, at=5), *(Collector() for _ in range(7))]
    for place, collector in enumerate(rollouts):
        engine.submit(ask(5, first=place, max_tokens=100), collector.take, background=True)
    assert rollouts[0].entered.wait(SECONDS)
    assert (engine.active, engine.queued) == (3, 5)
    user, lengths = Collector(), []

    def take(chunk):
        lengths.append([len(collector.tokens) for collector in rollouts[:3]])
        user.take(chunk)

    engine.submit(ask(5, first=90, max_tokens=3), take)
    gate.set()
    user.wait()
    # It did not wait for one of them: all three had still far to go.
    assert max(lengths[-1]) < 20
    assert [call[1] for call in model.calls if call[0] == "decode"].count(4) == 2


def test_a_user_finds_a_place_for_its_prompt_while_those_of_a_batch_are_computed(start):
    engine, model = start(slots=8, staging=2, reserved_slots=1)
    user, submitted = Collector(), []

    def come(call):
        if call[0] == "prefill" and call[3] == 16 and not submitted:
            submitted.append(engine.submit(ask(8, first=90, max_tokens=1), user.take))

    _, gate = hold(engine, ask(5, max_tokens=200))
    model.before = come
    rollouts = [Collector() for _ in range(4)]
    for place, collector in enumerate(rollouts):
        engine.submit(ask(80, first=place), collector.take, background=True)
    gate.set()
    user.wait()
    for collector in rollouts:
        collector.wait()
    pieces = [call for call in model.calls if call[0] == "prefill"]
    came = next(place for place, call in enumerate(pieces) if call[3] == 16)
    (begun,) = (place for place, call in enumerate(pieces) if len(call[2]) == 8 and call[2][0] == 3 + 90 * 31 % 500)
    assert begun - came <= 2


def test_the_background_has_no_limit_of_the_queue(start):
    engine, _ = start(slots=1, queue_limit=1)
    _, gate = hold(engine, ask(5))
    collectors = [Collector() for _ in range(50)]
    for collector in collectors:
        engine.submit(ask(5, max_tokens=1), collector.take, background=True)
    gate.set()
    assert {collector.wait().reason for collector in collectors} == {"length"}


def test_a_beginning_that_cannot_be_restored_ends_its_request_with_an_error(start):
    engine, model = start(prefix_bytes=1 << 20)
    request = ask(40)
    first, second = engine.generate_batch([request])[0], engine.generate_batch([request])[0]
    assert outcome(first) == outcome(second)

    def refuse(call):
        if call[0] == "write_prefix":
            raise MemoryError("no room")

    model.before = refuse
    # More often than there are staging slots: none is lost.
    for _ in range(6):
        (failed,) = engine.generate_batch([request])
        assert failed.reason == "error"
        assert isinstance(failed.error, ShammahError)
    model.before = lambda _call: None
    (again,) = engine.generate_batch([request])
    assert outcome(again) == outcome(first)


def test_a_prompt_that_fails_ends_alone(start):
    engine, model = start()
    running, gate = hold(engine, ask(5, max_tokens=40))

    def refuse(call):
        if call[0] == "prefill" and call[3] == 16:
            raise ValueError("broken")

    model.before = refuse
    failing, sound = Collector(), Collector()
    engine.submit(ask(40, first=2), failing.take)
    engine.submit(ask(10, first=3), sound.take)
    gate.set()
    assert failing.wait().reason == "error"
    assert sound.wait().reason == running.wait().reason == "length"
    assert engine.session_failures == 0


def choose_ends(tokens):
    """Return a script in which responses end by themselves at different lengths."""
    value = hash(tuple(tokens)) % 997
    return 2 if value % 11 == 0 else 3 + value % 500


@pytest.mark.parametrize("steps", [2, 7, 16])
def test_several_steps_at_once_give_the_same_answers_as_one(start, steps):
    requests = [ask(4 + place, first=place, max_tokens=1 + 5 * place) for place in range(10)]
    single, _ = start(choose=choose_ends)
    wanted = single.generate_batch(requests)
    many, model = start(choose=choose_ends, most_steps=steps)
    assert many.generate_batch(requests) == wanted
    assert {one.reason for one in wanted} == {"stop", "length"}
    assert many.tokens_generated == single.tokens_generated == sum(one.statistics.length for one in wanted)
    assert steps in {call[2] for call in model.calls if call[0] == "decode"}


@pytest.mark.parametrize(
    "sampling", [{"temperature": 1.0, "seed": 3}, {"constraint": Constraint(labels=("a long label to write",))}]
)
def test_one_step_at_a_time_is_taken_while_a_row_needs_its_logits(start, sampling):
    engine, model = start(most_steps=8, slots=2)
    engine.generate_batch([ask(5), ask(6, max_tokens=40, **sampling)])
    together = [call[2] for call in model.calls if call[0] == "decode" and call[1] == 2]
    assert set(together) == {1}


def test_one_step_at_a_time_is_taken_while_a_prompt_is_computed(start):
    engine, model = start(most_steps=8)
    running, gate = hold(engine, ask(5, max_tokens=200))
    engine.submit(ask(64, max_tokens=1), (other := Collector()).take)
    model.calls.clear()
    gate.set()
    other.wait()
    running.wait()
    kinds = [call[0] for call in model.calls]
    first, last = kinds.index("prefill"), len(kinds) - 1 - kinds[::-1].index("prefill")
    # The first call may have been promised already, before the other came.
    _, *between = (call for call in model.calls[first:last] if call[0] == "decode")
    assert len(between) >= 5
    assert {call[2:] for call in between} == {(1, False)}
    assert model.calls[-1][2:] == (8, True)


def test_more_steps_of_the_same_kind_follow_where_they_were_announced(start):
    engine, model = start(most_steps=8, slots=3)
    collectors = [Collector() for _ in range(12)]
    for place, collector in enumerate(collectors):
        engine.submit(ask(4 + 7 * place, first=place, max_tokens=5 + 9 * place), collector.take)
    for collector in collectors:
        assert collector.wait().reason == "length"
    steps = [call for call in model.calls if call[0] == "decode"]
    announced = [(call, after) for call, after in pairwise(steps) if call[3]]
    assert announced
    assert all(call[2] == after[2] == 8 for call, after in announced)


def test_prompts_of_rollouts_are_computed_together_and_answered_as_alone(start):
    engine, model = start(slots=8, prompts_a_turn=8, prefill_tokens=100, joint_tokens=80)
    requests = [ask(8 + place % 3, first=place, max_tokens=3 + place % 4) for place in range(30)]
    requests[11] = ask(8, first=11, max_tokens=5, temperature=1.0, seed=3)
    done = engine.generate_batch(requests)
    together = [call for call in model.calls if call[0] == "prefill_rows"]
    assert max(len(call[2]) for call in together) == 8
    assert sum(len(call[2]) for call in together) + sum(call[0] == "prefill" for call in model.calls) == 30
    alone, other = start(slots=8, prompts_a_turn=8, prefill_tokens=100)
    assert [outcome(one) for one in alone.generate_batch(requests)] == [outcome(one) for one in done]
    assert not any(call[0] == "prefill_rows" for call in other.calls)
    assert [one.statistics for one in alone.generate_batch(requests)] == [one.statistics for one in done]


def test_prompts_that_are_too_long_or_too_short_to_be_computed_together_are_computed_alone(start):
    engine, model = start(slots=8, staging=2, prompts_a_turn=8, prefill_tokens=100, joint_tokens=80)
    lengths = [5, 5, 90, 1, 5, 5, 60, 60]
    done = engine.generate_batch([ask(length, first=place) for place, length in enumerate(lengths)])
    assert {one.reason for one in done} == {"length"}
    assert [len(call[2]) for call in model.calls if call[0] == "prefill_rows"] == [2, 2]
    assert sorted(len(call[2]) for call in model.calls if call[0] == "prefill") == [1, 60, 60, 90]


def test_what_found_no_room_beside_the_others_is_next(start):
    engine, model = start(slots=8, prompts_a_turn=8, joint_tokens=800)
    model.joint_rows = 3
    done = engine.generate_batch([ask(5, first=place) for place in range(8)])
    assert {one.reason for one in done} == {"length"}
    joint = [(call[1], len(call[2])) for call in model.calls if call[0] == "prefill_rows"]
    assert joint == [(0, 8), (3, 5), (6, 2)]


def test_where_prompts_fail_together_each_is_computed_alone_from_then_on(start):
    engine, model = start(slots=8, prompts_a_turn=8, joint_tokens=800)

    def refuse(call):
        if call[0] == "prefill_rows":
            raise RuntimeError("no memory")

    model.before = refuse
    done = engine.generate_batch([ask(5, first=place) for place in range(12)])
    assert {one.reason for one in done} == {"length"}
    assert [call[0] for call in model.calls].count("prefill_rows") == 1
    assert [call[0] for call in model.calls].count("prefill") == 12
    assert engine.session_failures == 0


def test_where_somebody_waits_for_the_next_token_prompts_are_not_computed_together(start):
    engine, model = start(slots=8, prompts_a_turn=4, joint_tokens=800)
    engine.generate_batch([ask(5, first=place) for place in range(12)])
    assert not any(call[0] == "prefill_rows" for call in model.calls)
