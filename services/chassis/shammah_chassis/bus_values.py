"""What the event bus hands out: plain values, free of NATS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A confirmed publication: its log sequence, and whether the log had it already."""

    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class KvEntry:
    """A value of the bucket and its revision, which grows with every write to the bucket."""

    value: str
    revision: int


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message of the example log: its sequence and the bytes of its envelope."""

    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogState:
    """The example log: first and last sequence, messages, bytes held and allowed.

    `made`: when its stream was made, in Unix microseconds; another number is another log.
    """

    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int
    max_bytes: int
    made: int
