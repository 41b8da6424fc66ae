"""What goes into the engine and what comes out of it: plain values, free of transport and of numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shammah_chassis.errors import ShammahError
from shammah_chassis.examples import Message

from shammah_generator.sampling import Sampling
from shammah_generator.statistics import GenerationStatistics

Reason = Literal["stop", "length", "cancelled", "error"]
"""Why a response ended: its end of turn or a stop string; its limit; the caller; a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One response to generate: from messages, or from `prompt_ids` that are already encoded (not both)."""

    messages: tuple[Message, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a response ended; `error` is set if and only if `reason` is "error"."""

    reason: Reason
    statistics: GenerationStatistics
    error: ShammahError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a response; the last one, and only it, carries `finish`.

    `token_ids` and `logprobs` (nats) are those drawn since the chunk before, without the end of turn. Text may lag
    behind them: half a character, or what might become a stop string, waits.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole response of `Engine.generate_batch`; the text is its chunks put together."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: Reason
    statistics: GenerationStatistics
    error: ShammahError | None = None


class Handle:
    """The caller's hold on a submitted request."""

    __slots__ = ("_cancelled",)

    def __init__(self) -> None:
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ask for an early end: the slot is free, and the last chunk sent, within one step. Safe from any thread."""
        self._cancelled = True
