"""What the measurements of the generator share: settings, a model that notes its steps, runs of streams, figures."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from shammah_chassis.errors import ShammahError
from shammah_generator.engine import Engine
from shammah_generator.model import GeneratorModel
from shammah_generator.requests import Chunk, Request
from shammah_generator.sampling import Sampling
from shammah_generator.stepping import Scores

BASE = Path.home() / ".cache/shammah/base/generator"
PROMPT_TOKENS = 64
NEW_TOKENS = 64
_WAIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: the full run, or a quick one that only shows that all works."""

    repetitions: int
    new_tokens: int
    prompts: int
    """Prompts of `kl` and `top1`."""
    invariant_prompts: int
    rounds: int
    """Requests of each closed-loop stream."""
    threads: int = 2
    quick: bool = False


FULL = Plan(repetitions=5, new_tokens=NEW_TOKENS, prompts=96, invariant_prompts=200, rounds=8)
QUICK = Plan(repetitions=1, new_tokens=16, prompts=6, invariant_prompts=20, rounds=2, quick=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One decoding step: when it ended, its rows, its length in seconds."""

    ended: float
    rows: int
    seconds: float


class RecordedModel(GeneratorModel):
    """The real model, which also notes each decoding step (under a microsecond a step)."""

    steps: list[Step]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.steps = []

    def decode(self, ids: Sequence[int], **named: Any) -> Scores:
        begun = time.perf_counter()
        scores = super().decode(ids, **named)
        ended = time.perf_counter()
        self.steps.append(Step(ended, len(ids), ended - begun))
        return scores


@contextmanager
def opened(
    precision: str,
    *,
    slots: int,
    threads: int,
    context: int = 256,
    folder: Path = BASE,
    endless: bool = True,
    **engine_settings: Any,
) -> Iterator[tuple[RecordedModel, Engine]]:
    """Load a version and run an engine over it.

    An `endless` engine takes no token for the end of a response, so that every response has the length that was asked.
    """
    model = RecordedModel.load(folder, precision=precision, threads=threads, slots=slots, context=context)
    assert isinstance(model, RecordedModel)
    settings: dict[str, Any] = {"queue_limit": 1024, "prefix_bytes": 0}
    engine = Engine(model, **(settings | engine_settings))
    if endless:
        engine._ends = frozenset()
    try:
        yield model, engine
    finally:
        engine.close(0)
        model.close()


def random_prompts(count: int, *, seed: int, tokens: int = PROMPT_TOKENS) -> list[list[int]]:
    """Return prompts of ordinary token ids; no two share a beginning."""
    found: list[list[int]] = np.random.default_rng(seed).integers(100, 40_000, (count, tokens)).tolist()
    return found


@dataclass(slots=True)
class Stream:
    """What one response's caller sees: arrival time and tokens of each chunk."""

    sent: float = field(default_factory=time.perf_counter)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    error: ShammahError | None = None

    def take(self, chunk: Chunk) -> None:
        self.arrivals.append((time.perf_counter(), len(chunk.token_ids)))
        if chunk.finish is not None:
            self.error = chunk.finish.error
            self.done.set()

    def wait(self) -> None:
        if not self.done.wait(_WAIT_SECONDS):
            raise SystemExit("a response did not end")
        if self.error is not None:
            raise SystemExit(f"a response failed: {self.error.message}")


def submit(engine: Engine, prompt: Sequence[int], tokens: int) -> Stream:
    """Start one greedy response of that many tokens."""
    stream = Stream()
    engine.submit(Request(prompt_ids=tuple(prompt), sampling=Sampling(max_tokens=tokens)), stream.take)
    return stream


def decode_rate(model: RecordedModel, engine: Engine, prompts: Sequence[Sequence[int]], tokens: int) -> float:
    """Return tokens/s of `len(prompts)` streams while all of them decode, everything that the engine does included.

    A prompt is computed at a time, so the first rows are some steps ahead when the last one joins: those may have so
    many more tokens, and all end together. Counted between the ends of the first and the last full step.
    """
    model.steps.clear()
    count = len(prompts)
    streams = [submit(engine, prompt, tokens + count - 1 - place) for place, prompt in enumerate(prompts)]
    for stream in streams:
        stream.wait()
    # A prompt is computed before a step: the first full step may have had one, so it only starts the clock.
    full = [step for step in model.steps if step.rows == count]
    return count * (len(full) - 1) / (full[-1].ended - full[0].ended)


def window_rate(streams: Sequence[Stream]) -> float:
    """Return tokens/s between the last first chunk and the first finish, by what arrived at the callers."""
    begun = max(stream.arrivals[0][0] for stream in streams)
    ended = min(stream.arrivals[-1][0] for stream in streams)
    arrived = sum(tokens for stream in streams for at, tokens in stream.arrivals if begun < at <= ended)
    return arrived / (ended - begun)


def describe(values: Sequence[float], unit: str = "") -> str:
    """Return median and spread of repeated values in words."""
    return (
        f"{statistics.median(values):.4g}{unit} ({min(values):.4g} to {max(values):.4g} in {len(values)} repetitions)"
    )
