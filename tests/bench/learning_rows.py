"""Rows of a study as a training loop wants them, and how a student does on graded rows: for the studies on a GPU.

Answers come from `learning_greedy`, grades from the chassis. Nothing is certified here: a study compares trainings.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo
from learning_greedy import Greedy
from shammah_chassis.grading import grade
from shammah_generator.chat import END, encode_example, encode_prompt, find_control, load_tokenizer
from shammah_trainer import sft_run
from shammah_trainer.batches import BinLimits, BinShape, RowTable, SftRow
from shammah_trainer.hyper import SftHyper
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.offline.study import Study
from shammah_trainer.sft import fine_tune
from shammah_trainer.student import Student, load_student

LIMIT = 64
"""New tokens of a response at most; a family whose responses are longer is never right here, in no arm."""
MAX_TOKENS = 320
"""Of a row that is taught; a longer one loses its head."""


_TEST_IDS = Path(__file__).parent / "results" / "learning_test_ids.json"


@dataclass(frozen=True, slots=True)
class Told:
    """What a student said to one row: the sum of its log-probabilities, and whether that was right."""

    category: str
    confidence: float
    good: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows with their prompts, and the ids of row and response for training."""

    rows: tuple[LedgerRow, ...]
    prompts: list[list[int]]
    sft: list[SftRow]
    limits: list[int]


class Pool:
    """Rows that may be taught, encoded when they are: few of them are."""

    def __init__(self, rows: Sequence[LedgerRow], tokenizer: Any) -> None:
        self.rows, self._tokenizer = tuple(rows), tokenizer
        self._known: dict[int, SftRow] = {}

    def take(self, numbers: Sequence[int]) -> list[SftRow]:
        """Return some rows to train on."""
        for number in numbers:
            if number not in self._known:
                self._known[number] = _encode_row(self.rows[number], self._tokenizer)[0]
        return [self._known[number] for number in numbers]

    def prompt(self, number: int) -> list[int]:
        """Return the ids of a query."""
        return encode_prompt(self._tokenizer, self.rows[number].example.query)


def encode(rows: Sequence[LedgerRow], tokenizer: Any) -> Encoded:
    """Encode rows; a response longer than `LIMIT` is asked for with 8 tokens, as it can't come right anyway."""
    prompts, sft, limits = [], [], []
    for row in rows:
        taught, response = _encode_row(row, tokenizer)
        limits.append(min(LIMIT, 4 + response * 3 // 2) if response <= LIMIT else 8)
        prompts.append(encode_prompt(tokenizer, row.example.query))
        sft.append(taught)
    # The limit must not tell the length of the right answer: all rows of a category get its largest.
    largest: dict[str, int] = {}
    for row, limit in zip(rows, limits, strict=True):
        largest[row.category] = max(largest.get(row.category, 0), limit)
    return Encoded(tuple(rows), prompts, sft, [largest[row.category] for row in rows])


def _encode_row(row: LedgerRow, tokenizer: Any) -> tuple[SftRow, int]:
    """Return a row for training, and the tokens of its response."""
    ids, mask = encode_example(tokenizer, row.example.query, row.example.response)
    over = max(0, len(ids) - MAX_TOKENS)
    return SftRow(tuple(ids[over:]), tuple(mask[over:])), sum(mask)


def read_tests(study: Study) -> list[LedgerRow]:
    """Return the test rows of a study that are on the published list."""
    listed = {name for names in json.loads(_TEST_IDS.read_text("utf-8")).values() for name in names}
    return [row for row in study.rows("test") if study.names.get(row.id) in listed]


def draw(rows: Sequence[LedgerRow], most: dict[str, int], default: int, *, seed: int = 0) -> list[LedgerRow]:
    """Return at most so many random rows of each category."""
    rng = random.Random(seed)
    pools: dict[str, list[LedgerRow]] = {}
    for row in sorted(rows, key=lambda item: item.id):
        pools.setdefault(row.category, []).append(row)
    return [
        row for name in sorted(pools) for row in rng.sample(pools[name], min(len(pools[name]), most.get(name, default)))
    ]


class Learner:
    """One base student that is taught again and again from its first weights.

    `shape`: all its trainings use bins of this one shape, so that blocks are compiled once; None: no compiling.
    """

    def __init__(self, student: Student, tokenizer: Any, *, end: int, shape: BinShape | None = None) -> None:
        self.student, self.tokenizer, self.end = student, tokenizer, end
        self._shape = shape
        self._base = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
        self._greedy: Greedy | None = None

    @classmethod
    def load(cls, base: Path, *, device: torch.device, shape: BinShape | None = None) -> Learner:
        """Read the base generator below `base`."""
        tokenizer = load_tokenizer(base / "generator" / "tokenizer.json")
        student = load_student(base / "generator", device=device)
        # Each training asks for the same blocks again.
        torch._dynamo.config.recompile_limit = 256
        return cls(student, tokenizer, end=find_control(tokenizer, END), shape=shape)

    def reset(self) -> None:
        """Go back to the base weights."""
        with torch.no_grad():
            for name, tensor in self.student.model.state_dict().items():
                tensor.copy_(self._base[name])

    def teach(
        self,
        rows: Sequence[SftRow],
        *,
        steps: int,
        together: int,
        rate: float,
        seed: int,
        replay: Sequence[SftRow] = (),
        dev: Sequence[SftRow] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """Make about `steps` steps of `together` new rows, whatever the number of rows; `replay` as in a round.

        `more`: other hyper-parameters. Returns what took how long, in seconds.
        """
        epochs = max(1, round(steps * together / len(rows)))
        hyper = SftHyper(
            epochs=epochs, learning_rate=rate, batch_tokens=16_384, max_rows_per_batch=together, max_tokens=MAX_TOKENS,
            seed=seed, compile_mode="off" if self._shape is None else "on", **more,
        )  # fmt: skip
        self.student.model.train()
        with fixed_shape(self._shape):
            result = fine_tune(self.student, rows, dev or rows[:1], hyper=hyper, replay=replay)
        return {"steps": result.steps, "seconds": result.seconds, "prepare": result.prepare_seconds} | {
            "engine": result.engine
        }

    def ask(self, encoded: Encoded) -> list[Told]:
        """Answer and grade every row."""
        if self._greedy is None:
            # The cache of 512 rows takes 5 GB; a machine without a GPU only tries the program.
            on_gpu = self.student.model.model.embed_tokens.weight.is_cuda
            self._greedy = Greedy(self.student.model, end=self.end, rows=512 if on_gpu else 8)
        self._greedy.load(self.student.model)
        told = []
        for row, reply in zip(encoded.rows, self._greedy.answer(encoded.prompts, encoded.limits), strict=True):
            text = self.tokenizer.decode(list(reply.ids)) if reply.whole else ""
            good = reply.whole and row.example.grader != "unit_tests" and bool(grade(text, row.example).good)
            told.append(Told(row.category, reply.confidence, good))
        return told


@contextmanager
def fixed_shape(shape: BinShape | None) -> Iterator[None]:
    """Give all bins that are planned meanwhile one shape; the trainer chooses one for each set of rows."""
    if shape is None:
        yield
        return

    def choose(table: RowTable, limits: BinLimits) -> tuple[BinLimits, BinShape]:
        return BinLimits(min(shape.tokens, limits.tokens), limits.rows, shape.labels), shape

    usual = sft_run.choose_shape
    sft_run.choose_shape = choose
    try:
        yield
    finally:
        sft_run.choose_shape = usual


def share_by_category(told: Sequence[Told], names: Sequence[str]) -> dict[str, float]:
    """Return `ranked_share` of each category by itself: the promise is kept category by category."""
    return {name: ranked_share([item for item in told if item.category == name]) for name in names}


def ranked_share(test: Sequence[Told], *, precision: float = 0.95) -> float:
    """Return the largest share of rows, most confident first, of which `precision` are right; it promises nothing."""
    good = np.array([item.good for item in sorted(test, key=lambda item: -item.confidence)])
    right = np.cumsum(good) / np.arange(1, len(good) + 1)
    passing = np.flatnonzero(right >= precision)
    return float(passing[-1] + 1) / len(good) if len(passing) else 0.0
