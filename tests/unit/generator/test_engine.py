from __future__ import annotations

import threading

import pytest
from shammah_chassis.errors import InvalidInputError, OverloadedError, ShammahError, TooLongError, UnavailableError
from shammah_chassis.examples import Message
from shammah_generator.chat import encode_prompt
from shammah_generator.engine import Engine
from shammah_generator.requests import Request
from support.generating import SECONDS, Collector, ask, outcome

QUESTIONS = [
    "What is the capital of France?",
    "book a table",
    "my card was lost, please transfer 120 euros to my savings account",
    "1, 2, 3",
    "Köln",
    "who are you",
    "naïve café",
    "numbers; yes and no are answers",
    "the lazy dog",
    "x",
]


@pytest.fixture
def make_engine(folder, load):
    engines = []

    def make(*, queue_limit=16, chunk_tokens=8, prefix_bytes=0, **settings):
        model = load(folder, **settings)
        engines.append(Engine(model, queue_limit=queue_limit, chunk_tokens=chunk_tokens, prefix_bytes=prefix_bytes))
        return engines[-1], model

    yield make
    for engine in engines:
        engine.close(0)


@pytest.fixture(scope="module")
def long_questions(folder):
    """Questions whose greedy response does not end by itself within 40 tokens."""
    from shammah_generator.model import GeneratorModel

    model = GeneratorModel.load(folder, precision="fp32", threads=1, slots=4, context=96)
    engine = Engine(model, queue_limit=1)
    candidates = [f"{question} {number}" for question in QUESTIONS for number in range(3)]
    done = engine.generate_batch([ask(text, max_tokens=40) for text in candidates])
    engine.close(SECONDS)
    model.close()
    found = [text for text, one in zip(candidates, done, strict=True) if len(one.token_ids) == 40]
    assert len(found) >= 4
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_greedy_answer_does_not_depend_on_who_shares_the_batch(make_engine, precision):
    requests = [ask(text, max_tokens=3 + 4 * place) for place, text in enumerate(QUESTIONS)]
    alone_engine, _ = make_engine(slots=1, precision=precision)
    alone = [alone_engine.generate_batch([request])[0] for request in requests]
    together_engine, _ = make_engine(slots=4, precision=precision)
    together = together_engine.generate_batch(requests)
    assert [outcome(one) for one in together] == [outcome(one) for one in alone]
    assert len({one.token_ids for one in alone}) > len(QUESTIONS) // 2
    for one, other in zip(alone, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_greedy_tokens_are_those_of_pytorch(make_engine, folder, reference):
    engine, model = make_engine()
    for text in QUESTIONS[:3]:
        (found,) = engine.generate_batch([ask(text, max_tokens=8)])
        ids = encode_prompt(model.tokenizer, [Message("user", text)])
        for token in found.token_ids:
            assert token == reference(folder, ids)[-1].argmax()
            ids.append(token)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_request_twice_gives_the_same_answer(make_engine, temperature):
    engine, _ = make_engine(slots=1)
    request = ask("who are you", temperature=temperature, seed=5, max_tokens=30)
    first, second = engine.generate_batch([request, request])
    assert first == second


def test_another_seed_gives_another_answer(make_engine):
    engine, _ = make_engine()
    requests = [ask("who are you", temperature=1.5, seed=seed, max_tokens=30) for seed in (1, 2)]
    first, second = engine.generate_batch(requests)
    assert first.token_ids != second.token_ids


def test_statistics_match_the_log_probabilities_of_the_tokens(make_engine, long_questions):
    engine, model = make_engine()
    (one,) = engine.generate_batch([ask(long_questions[0], max_tokens=20)])
    found = one.statistics
    assert (found.length, len(one.token_ids), len(one.logprobs)) == (20, 20, 20)
    assert found.sum_logprob == pytest.approx(sum(one.logprobs))
    assert found.first_logprob == one.logprobs[0]
    assert found.prompt_tokens == len(encode_prompt(model.tokenizer, ask(long_questions[0]).messages))
    assert found.margin_min >= 0
    assert engine.tokens_generated == 20


def test_the_end_of_turn_ends_the_answer_and_is_not_in_it(make_engine, long_questions):
    engine, model = make_engine()
    requests = [ask(text, temperature=2.0, seed=seed, max_tokens=60) for seed in range(3) for text in long_questions]
    ended = [one for one in engine.generate_batch(requests) if one.reason == "stop"]
    assert ended
    for one in ended:
        assert not {0, 1, 2} & set(one.token_ids)
        assert "<|im_end|>" not in one.text
        # The end itself was drawn too, and is evidence.
        assert one.statistics.length == len(one.token_ids) + 1
        assert model.tokenizer.decode(list(one.token_ids)).rstrip("\ufffd") == one.text


def test_a_stop_string_ends_the_answer_before_it(make_engine, long_questions):
    engine, _ = make_engine()
    (whole,) = engine.generate_batch([ask(long_questions[0], max_tokens=40)])
    stop = whole.text[10:13]
    (cut,) = engine.generate_batch([ask(long_questions[0], max_tokens=40, stop=(stop,))])
    assert cut.reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert len(cut.token_ids) < len(whole.token_ids)


def test_chunks_gather_tokens_and_only_the_last_one_has_the_finish(make_engine, long_questions):
    engine, _ = make_engine(chunk_tokens=8)
    collector = Collector()
    engine.submit(ask(long_questions[0], max_tokens=20), collector.take)
    assert collector.wait().reason == "length"
    # The first token goes out at once.
    assert [len(chunk.token_ids) for chunk in collector.chunks] == [1, 8, 8, 3]
    assert [chunk.finish is None for chunk in collector.chunks] == [True, True, True, False]
    (whole,) = engine.generate_batch([ask(long_questions[0], max_tokens=20)])
    assert (collector.text, collector.tokens) == (whole.text, whole.token_ids)


def test_max_tokens_is_cut_to_the_rest_of_the_context(make_engine, long_questions):
    engine, model = make_engine(context=50)
    ids = encode_prompt(model.tokenizer, ask(long_questions[0]).messages)
    (one,) = engine.generate_batch([ask(long_questions[0], max_tokens=10_000)])
    assert one.reason == "length"
    assert len(one.token_ids) == 50 - len(ids)


def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(make_engine):
    engine, _ = make_engine(context=50)
    with pytest.raises(TooLongError, match=r"50 tokens; allowed: up to 49"):
        engine.submit(Request(prompt_ids=(5,) * 50), Collector().take)
    longest = Collector()
    engine.submit(Request(prompt_ids=(5,) * 49), longest.take)
    longest.wait()
    assert len(longest.tokens) <= 1


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(messages=(Message("user", "x"),), prompt_ids=(5,)),
        Request(prompt_ids=(512,)),
        Request(prompt_ids=(-1,)),
    ],
)
def test_an_invalid_request_is_refused(make_engine, request_):
    engine, _ = make_engine()
    with pytest.raises(InvalidInputError):
        engine.submit(request_, Collector().take)


def test_an_invalid_request_of_a_batch_leaves_the_others_alone(make_engine):
    engine, _ = make_engine()
    good = ask("x")
    first, bad, last = engine.generate_batch([good, Request(prompt_ids=(5,) * 500), good])
    assert bad.reason == "error"
    assert isinstance(bad.error, TooLongError)
    assert first.reason != "error"
    assert outcome(first) == outcome(last)


def test_a_full_queue_refuses_with_a_hint_when_to_return(make_engine, long_questions):
    engine, _ = make_engine(slots=1, queue_limit=2, chunk_tokens=1)
    gate = threading.Event()
    collectors = [Collector(gate=gate, at=2), Collector(), Collector()]
    engine.submit(ask(long_questions[0]), collectors[0].take)
    assert collectors[0].entered.wait(SECONDS)
    for collector in collectors[1:]:
        engine.submit(ask("x"), collector.take)
    assert (engine.active, engine.queued) == (1, 2)
    with pytest.raises(OverloadedError) as caught:
        engine.submit(ask("x"), Collector().take)
    assert caught.value.retry_after_seconds > 0
    gate.set()
    assert all(collector.wait().reason in ("stop", "length") for collector in collectors)


def test_cancelling_frees_the_slot_at_once_and_leaves_the_others_alone(make_engine, long_questions):
    engine, _ = make_engine(slots=3, chunk_tokens=1)
    expected = [one.token_ids for one in engine.generate_batch([ask(text) for text in long_questions[:3]])]
    gate = threading.Event()
    collectors = [Collector(), Collector(), Collector(gate=gate)]
    handles = [
        engine.submit(ask(text, max_tokens=40 if place == 0 else 12), collector.take)
        for place, (text, collector) in enumerate(zip(long_questions, collectors, strict=False))
    ]
    # The third has drawn its first token: all three are in their slots now, and the thread waits.
    assert collectors[2].entered.wait(SECONDS)
    waiting = Collector()
    engine.submit(ask(long_questions[3]), waiting.take)
    drawn = len(collectors[0].chunks)
    handles[0].cancel()
    gate.set()
    finish = collectors[0].wait()
    assert finish.reason == "cancelled"
    assert finish.statistics.length == len(collectors[0].tokens) <= drawn + 1
    for collector in (*collectors[1:], waiting):
        assert collector.wait().reason == "length"
    assert [collector.tokens for collector in collectors[1:]] == expected[1:]


def test_a_request_can_be_cancelled_while_it_waits(make_engine, long_questions):
    engine, _ = make_engine(slots=1)
    gate = threading.Event()
    first, second = Collector(gate=gate), Collector()
    engine.submit(ask(long_questions[0]), first.take)
    assert first.entered.wait(SECONDS)
    engine.submit(ask("x"), second.take).cancel()
    gate.set()
    assert second.wait().reason == "cancelled"
    assert second.tokens == ()
    assert first.wait().reason == "length"


def test_a_callback_that_fails_ends_only_its_own_request(make_engine, long_questions):
    engine, _ = make_engine(chunk_tokens=1)
    (expected,) = engine.generate_batch([ask(long_questions[0])])
    calls = []

    def fail(chunk):
        calls.append(chunk)
        raise ZeroDivisionError

    collector = Collector()
    engine.submit(ask(long_questions[1]), fail)
    engine.submit(ask(long_questions[0]), collector.take)
    assert collector.wait().reason == "length"
    assert collector.tokens == expected.token_ids
    assert len(calls) == 1
    assert engine.session_failures == 0


def test_a_failing_session_ends_every_request_with_an_error(make_engine, long_questions):
    engine, model = make_engine(slots=2, chunk_tokens=1)
    gate = threading.Event()
    collectors = [Collector(), Collector(gate=gate), Collector()]
    for text, collector in zip(long_questions, collectors, strict=False):
        engine.submit(ask(text), collector.take)
    assert collectors[1].entered.wait(SECONDS)
    model.close()
    gate.set()
    for collector in collectors:
        finish = collector.wait()
        assert finish.reason == "error"
        assert isinstance(finish.error, ShammahError)
    assert engine.session_failures == 1
    assert (engine.active, engine.queued) == (0, 0)
    # The thread lives on and says so for each further request.
    (one,) = engine.generate_batch([ask("x")])
    assert one.reason == "error"


def test_users_go_before_a_batch(make_engine, long_questions):
    engine, _ = make_engine(slots=1, queue_limit=1)
    gate = threading.Event()
    first = Collector(gate=gate)
    engine.submit(ask(long_questions[0]), first.take)
    assert first.entered.wait(SECONDS)
    rollouts = []
    thread = threading.Thread(target=lambda: rollouts.extend(engine.generate_batch([ask(long_questions[1])] * 5)))
    thread.start()
    while engine.queued < 5 and thread.is_alive():  # the callback above holds the engine: nothing can leave the queue
        threading.Event().wait(0.001)
    seen = []
    user = Collector()

    def take(chunk):
        seen.append(engine.queued)
        user.take(chunk)

    engine.submit(ask("x"), take)
    gate.set()
    user.wait()
    assert seen[0] == 5
    thread.join(SECONDS)
    assert [one.reason for one in rollouts] == ["length"] * 5


def test_closing_lets_what_runs_finish(make_engine, long_questions):
    engine, _ = make_engine()
    collectors = [Collector() for _ in range(6)]
    for collector in collectors:
        engine.submit(ask(long_questions[0]), collector.take)
    engine.close(SECONDS)
    assert [collector.wait().reason for collector in collectors] == ["length"] * 6
    with pytest.raises(UnavailableError):
        engine.submit(ask("x"), Collector().take)
    with pytest.raises(UnavailableError):
        engine.generate_batch([ask("x")])


def test_closing_without_patience_cancels_the_rest(make_engine, long_questions):
    engine, _ = make_engine(slots=1, chunk_tokens=1)
    gate = threading.Event()
    first, second = Collector(gate=gate), Collector()
    engine.submit(ask(long_questions[0]), first.take)
    assert first.entered.wait(SECONDS)
    engine.submit(ask("x"), second.take)
    closer = threading.Thread(target=engine.close, args=(0,))
    closer.start()
    gate.set()
    closer.join(SECONDS)
    assert not closer.is_alive()
    # The first may have finished before the patience was found to be over; the second waited behind it.
    assert {first.wait().reason, second.wait().reason} <= {"cancelled", "length", "stop"}
    assert (engine.active, engine.queued) == (0, 0)


def test_many_threads_may_submit(make_engine):
    engine, _ = make_engine(queue_limit=200)
    expected = {one: engine.generate_batch([ask(one)])[0].text for one in QUESTIONS}
    collectors = [(text, Collector()) for text in QUESTIONS * 4]
    threads = [threading.Thread(target=engine.submit, args=(ask(text), made.take)) for text, made in collectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for text, collector in collectors:
        collector.wait()
        assert collector.text == expected[text]


def test_counters_come_back_to_zero(make_engine):
    engine, model = make_engine()
    assert (engine.active, engine.queued, engine.tokens_generated) == (0, 0, 0)
    assert engine.kv_bytes == model.kv_bytes > 0
    done = engine.generate_batch([ask(text) for text in QUESTIONS])
    assert engine.tokens_generated == sum(one.statistics.length for one in done)
    assert (engine.active, engine.queued) == (0, 0)
