from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shammah.v1 import generator_pb2, types_pb2
from shammah_chassis.errors import InvalidInputError, TooLongError
from shammah_chassis.examples import Message
from shammah_generator.constraint import Constraint
from shammah_generator.requests import Chunk, Finish
from shammah_generator.sampling import Sampling
from shammah_generator.statistics import (
    CONSTRAINT_FEATURES,
    FEATURES,
    ConstraintStatistics,
    GenerationStatistics,
)
from shammah_generator.wire import read_request, read_sampling, write_chunk, write_response

STATISTICS = {name: place + 1 for place, name in enumerate(FEATURES)}
SCHEMA = '{"type": "object"}'


def read(**values):
    return read_sampling(generator_pb2.Sampling(**values), default_max_tokens=7)


def end(constraint=None):
    statistics = GenerationStatistics(**STATISTICS, constraint=constraint)
    return Chunk(text="a", token_ids=(5,), logprobs=(-0.5,), finish=Finish(reason="stop", statistics=statistics))


def test_what_is_not_set_is_the_default():
    assert read() == Sampling(max_tokens=7)


def test_everything_that_is_set_is_read():
    wanted = Sampling(max_tokens=3, temperature=0.5, top_k=4, top_p=0.25, seed=9, stop=("x", "y"))
    assert read(max_tokens=3, temperature=0.5, top_k=4, top_p=0.25, seed=9, stop=["x", "y"]) == wanted


def test_a_schema_or_labels_become_the_constraint():
    assert read(json_schema=SCHEMA).constraint == Constraint(json_schema=SCHEMA)
    assert read(labels=["yes", "no"]).constraint == Constraint(labels=("yes", "no"))


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"json_schema": SCHEMA, "labels": ["a"]}, "not both"),
        ({"labels": [""]}, "at least one character"),
        ({"labels": ["a"] * 1001}, "1 to 1000"),
        ({"json_schema": "{"}, "not JSON"),
        ({"json_schema": " " * 65537}, "65537 bytes; allowed: 65536"),
        ({"top_p": 3.0}, "up to 1"),
    ],
)
def test_what_is_not_allowed_is_refused_before_it_is_queued(values, allowed):
    with pytest.raises(InvalidInputError, match=allowed):
        read(**values)


@given(labels=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=20))
def test_labels_of_any_text_survive_the_wire(labels):
    sent = generator_pb2.Sampling(labels=labels).SerializeToString()
    got = read_sampling(generator_pb2.Sampling.FromString(sent), default_max_tokens=1)
    assert got.constraint == Constraint(labels=tuple(labels))


def test_a_request_is_read_with_its_messages():
    sent = [types_pb2.Message(role="user", content="Hi")]
    made = read_request(sent, generator_pb2.Sampling(labels=["a"]), default_max_tokens=2, context=10)
    assert made.messages == (Message("user", "Hi"),)
    assert made.sampling == Sampling(max_tokens=2, constraint=Constraint(labels=("a",)))


def test_no_messages_or_far_too_many_characters_are_refused():
    nothing = generator_pb2.Sampling()
    with pytest.raises(InvalidInputError, match="at least one"):
        read_request([], nothing, default_max_tokens=2, context=10)
    with pytest.raises(TooLongError, match="641 characters; allowed: 640"):
        read_request([types_pb2.Message(role="user", content="x" * 641)], nothing, default_max_tokens=2, context=10)


def test_a_chunk_before_the_last_has_no_end():
    made = write_chunk(Chunk(text="ab", token_ids=(1, 2), logprobs=(-1.0, -2.0)), release="r", version="v")
    assert (made.text, list(made.token_ids), list(made.logprobs)) == ("ab", [1, 2], [-1, -2])
    assert (made.release, made.version) == ("r", "v")
    assert made.finish_reason == generator_pb2.FINISH_REASON_UNSPECIFIED
    assert not made.HasField("statistics")
    assert not made.HasField("constraint")


def test_the_end_has_the_ten_statistics_in_the_order_that_validators_know():
    made = write_chunk(end(), release="r", version="v")
    assert made.finish_reason == generator_pb2.FINISH_REASON_STOP
    fields = types_pb2.GenerationStatistics.DESCRIPTOR.fields
    assert [field.name for field in fields] == list(FEATURES)
    assert [getattr(made.statistics, field.name) for field in fields] == list(range(1, 11))


def test_only_a_constrained_response_says_what_its_constraint_did():
    did = ConstraintStatistics(forced_tokens=2, unconstrained_sum_logprob=-3.5, allowed_sum_logprob=-0.25)
    for made in (
        write_chunk(end(did), release="r", version="v"),
        write_response(4, end(did), release="r", version="v"),
    ):
        assert [getattr(made.constraint, name) for name in CONSTRAINT_FEATURES] == [2, -3.5, -0.25]
        assert made.statistics.length == STATISTICS["length"]
    for made in (write_chunk(end(), release="r", version="v"), write_response(4, end(), release="r", version="v")):
        assert not made.HasField("constraint")
