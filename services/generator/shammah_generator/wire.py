"""Messages of the generator's rpcs to plain values and back. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable

from shammah.v1 import generator_pb2, types_pb2
from shammah_chassis.errors import InvalidInputError, TooLongError
from shammah_chassis.examples import Message

from shammah_generator.constraint import Constraint
from shammah_generator.requests import Chunk, Finish, Request
from shammah_generator.sampling import Sampling
from shammah_generator.statistics import CONSTRAINT_FEATURES, FEATURES, ConstraintStatistics, GenerationStatistics

# No token is that long on average: a conversation beyond it can't fit, and is refused before it is tokenized.
_MOST_CHARACTERS_PER_TOKEN = 64
_FINISH_REASONS = {"stop": generator_pb2.FINISH_REASON_STOP, "length": generator_pb2.FINISH_REASON_LENGTH}


def read_request(
    messages: Iterable[types_pb2.Message], sampling: generator_pb2.Sampling, *, default_max_tokens: int, context: int
) -> Request:
    """Return what the engine is asked for.

    Raises:
        InvalidInputError: as `read_sampling`, or there is no message.
        TooLongError: far more characters than a context of `context` tokens can hold.
    """
    turns = tuple(Message(message.role, message.content) for message in messages)
    if not turns:
        raise InvalidInputError("no messages; at least one is needed, the last one of the user")
    length, most = sum(len(turn.content) for turn in turns), context * _MOST_CHARACTERS_PER_TOKEN
    if length > most:
        raise TooLongError(f"the messages have {length} characters; allowed: {most} at most ({context} tokens)")
    return Request(messages=turns, sampling=read_sampling(sampling, default_max_tokens=default_max_tokens))


def read_sampling(sampling: generator_pb2.Sampling, *, default_max_tokens: int) -> Sampling:
    """Return the sampling; 0 is "not set" where the proto says so.

    Raises:
        InvalidInputError: a value is out of range, or the constraint is not one; whether its schema can be compiled
            shows when it is submitted.
    """
    schema, labels = sampling.json_schema, tuple(sampling.labels)
    return Sampling(
        max_tokens=sampling.max_tokens or default_max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p or 1.0,
        seed=sampling.seed or None,
        stop=tuple(sampling.stop),
        constraint=Constraint(json_schema=schema, labels=labels) if schema or labels else None,
    )


def write_chunk(chunk: Chunk, *, release: str, version: str) -> generator_pb2.GenerateResponse:
    """Return a message of the stream."""
    answer = generator_pb2.GenerateResponse(
        text=chunk.text, token_ids=chunk.token_ids, logprobs=chunk.logprobs, release=release, version=version
    )
    if chunk.finish is not None:
        _write_end(answer, chunk.finish)
    return answer


def write_response(index: int, whole: Chunk, *, release: str, version: str) -> generator_pb2.GenerateBatchResponse:
    """Return a message for one finished response of a batch."""
    answer = generator_pb2.GenerateBatchResponse(index=index, text=whole.text, release=release, version=version)
    if whole.finish is not None:
        _write_end(answer, whole.finish)
    return answer


def write_reason(finish: Finish) -> generator_pb2.FinishReason.ValueType:
    """Return why a response ended."""
    return _FINISH_REASONS.get(finish.reason, generator_pb2.FINISH_REASON_UNSPECIFIED)


def write_statistics(statistics: GenerationStatistics) -> types_pb2.GenerationStatistics:
    """Return the ten statistics that every response has; both sides have the same names."""
    return types_pb2.GenerationStatistics(**{name: getattr(statistics, name) for name in FEATURES})


def write_constraint(statistics: ConstraintStatistics) -> types_pb2.ConstraintStatistics:
    """Return what a constraint did; both sides have the same names."""
    return types_pb2.ConstraintStatistics(**{name: getattr(statistics, name) for name in CONSTRAINT_FEATURES})


def _write_end(answer: generator_pb2.GenerateResponse | generator_pb2.GenerateBatchResponse, finish: Finish) -> None:
    answer.finish_reason = write_reason(finish)
    answer.statistics.CopyFrom(write_statistics(finish.statistics))
    if finish.statistics.constraint is not None:
        answer.constraint.CopyFrom(write_constraint(finish.statistics.constraint))
