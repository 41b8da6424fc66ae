"""What the tests of the generator's engine share: requests, a gatherer of chunks, and a model that follows a script."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Message
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.chat import load_tokenizer
from shammah_generator.requests import Chunk, Completion, Finish, Request
from shammah_generator.sampling import Sampling
from shammah_generator.stepping import Scores

SECONDS = 20
"""Bound of every wait."""


class Collector:
    """Gathers the chunks of one request; can hold the engine's thread inside a callback.

    `gate` is waited for with the chunk number `at` (from 1) and all after it; `entered` is set when that one came.
    """

    def __init__(self, *, gate: threading.Event | None = None, at: int = 1) -> None:
        self.chunks: list[Chunk] = []
        self.entered = threading.Event()
        self._gate = gate
        self._at = at
        self._finished: queue.Queue[Finish] = queue.Queue()

    def take(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        if len(self.chunks) >= self._at:
            self.entered.set()
            if self._gate is not None:
                assert self._gate.wait(SECONDS)
        if chunk.finish is not None:
            self._finished.put(chunk.finish)

    def wait(self) -> Finish:
        return self._finished.get(timeout=SECONDS)

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for chunk in self.chunks for token in chunk.token_ids)


def ask(text: str, **sampling: Any) -> Request:
    """Return a request for the answer to one message of a user."""
    return Request(messages=(Message("user", text),), sampling=Sampling(**({"max_tokens": 12} | sampling)))


def outcome(completion: Completion) -> tuple[str, tuple[int, ...], str]:
    return completion.text, completion.token_ids, completion.reason


def spread_gains(folder: Path, *, seed: int = 0) -> Path:
    """Give each normalisation of a tiny generator gains of its own, as trained models have them; fresh ones have 1."""
    path = folder / "model.safetensors"
    weights, random = load_file(path), np.random.default_rng(seed)
    for name, value in weights.items():
        if name.endswith("norm.weight"):
            weights[name] = random.uniform(0.5, 1.5, value.shape).astype(value.dtype)
    save_file(weights, path, {"format": "pt"})
    return folder


def go_on(tokens: Sequence[int]) -> int:
    """Return a token that depends on all before it, and never ends a response."""
    return 3 + hash(tuple(tokens)) % 500


class ScriptedModel:
    """A model without a network: the next token is a function of the tokens before it. It writes down each call.

    `calls` holds ("prefill", slot, ids, past), ("prefill_rows", first, prompts), ("decode", rows, steps, more) and
    ("move", source, target); `before` is called with each of them first. `joint_rows` bounds the prompts of a call.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 4,
        staging: int = 4,
        context: int = 4096,
        most_steps: int = 1,
        prompts_a_turn: int = 1,
        joint_tokens: int = 0,
        choose: Callable[[Sequence[int]], int] = go_on,
    ) -> None:
        self.architecture = replace(Architecture.from_config(load_json(folder / "config.json")), vocab=512)
        self.tokenizer = load_tokenizer(folder / "tokenizer.json")
        self.slots = slots
        self.staging = staging
        self.context = context
        self.most_steps = most_steps
        self.keeps_prefixes = True
        self.prompts_a_turn = prompts_a_turn
        self.joint_tokens = joint_tokens
        self.joint_rows = slots
        self.kv_bytes = 0
        self.resident_bytes = 0
        self.calls: list[tuple[Any, ...]] = []
        self.before: Callable[[tuple[Any, ...]], None] = lambda _call: None
        self.held: list[list[int]] = [[] for _ in range(slots + staging)]
        self._choose = choose

    def prefill(self, slot: int, ids: Sequence[int], *, past: int = 0) -> Scores:
        self._note("prefill", slot, tuple(ids), past)
        assert ids
        assert past <= len(self.held[slot])
        assert slot >= self.slots
        self.held[slot] = [*self.held[slot][:past], *ids]
        return self._score([self.held[slot]], 1)

    def prefill_rows(self, first: int, prompts: Sequence[Sequence[int]]) -> int:
        self._note("prefill_rows", first, tuple(map(tuple, prompts)))
        assert (max(map(len, prompts)) - 1) * len(prompts) <= self.joint_tokens
        assert first + len(prompts) <= self.slots
        taken = prompts[: self.joint_rows]
        self.held[first : first + len(taken)] = [list(prompt[:-1]) for prompt in taken]
        return len(taken)

    def decode(self, ids: Sequence[int], *, steps: int = 1, more: bool = False) -> Scores:
        self._note("decode", len(ids), steps, more)
        if not (1 <= len(ids) <= self.slots and 1 <= steps <= self.most_steps):
            raise InvalidInputError(f"{len(ids)} rows and {steps} steps")
        rows = self.held[: len(ids)]
        for row, token in zip(rows, ids, strict=True):
            row.append(token)
        scores = self._score(rows, steps)
        for row, tokens in zip(rows, scores.tokens, strict=True):
            row.extend(tokens[:-1])
        return scores

    def keep(self, rows: int) -> None:
        pass

    def move(self, source: int, target: int) -> None:
        self._note("move", source, target)
        self.held[target] = list(self.held[source])

    def read_prefix(self, slot: int, start: int, stop: int) -> np.ndarray:
        assert stop <= len(self.held[slot])
        return np.array(self.held[slot][start:stop], np.int64).reshape(1, 1, -1, 1)

    def write_prefix(self, slot: int, start: int, values: np.ndarray) -> None:
        self._note("write_prefix", slot, start, values.shape[2])
        self.held[slot] = [*self.held[slot][:start], *values.ravel().tolist()]

    def close(self) -> None:
        self._note("close")

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.before(call)

    def _score(self, rows: list[list[int]], steps: int) -> Scores:
        """Return the same numbers for the same tokens, whoever asks and however many steps are taken at once."""
        tokens, values = [], []
        for row in rows:
            grown = list(row)
            for _ in range(steps):
                grown.append(self._choose(grown))
            tokens.append(grown[len(row) :])
            values.append([(hash(tuple(grown[:end])) % 1000 + 1) / 1000 for end in range(len(row), len(grown))])
        logits = [np.full(512, -10, np.float32) for _ in rows]
        for row, picked in zip(logits, tokens, strict=True):
            row[picked[-1]] = 10
        return Scores(
            tokens=tokens,
            logprobs=[[-value for value in row] for row in values],
            entropies=[[2 * value for value in row] for row in values],
            margins=[[3 * value for value in row] for row in values],
            logits=logits.__getitem__,
        )
