"""Rows of a study as a training loop wants them, and how a student does on graded rows: for the studies on a GPU.

Answers come from `learning_greedy`, grades from the chassis, thresholds from the trainer's own `certify`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from learning_greedy import Greedy
from shammah_chassis.grading import grade
from shammah_generator.chat import encode_example, encode_prompt
from shammah_trainer.batches import SftRow
from shammah_trainer.certify import CategoryEvidence, GradedRow, certify
from shammah_trainer.hyper import Averaging, SftHyper
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.sft import fine_tune
from shammah_trainer.student import Student

LIMIT = 64
"""New tokens of a response at most; a family whose responses are longer is never right here, in no arm."""
ALPHA, DELTA = 0.05, 0.05


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

    def take(self, numbers: Sequence[int]) -> list[SftRow]:
        """Return some rows to train on."""
        return [self.sft[number] for number in numbers]


def encode(rows: Sequence[LedgerRow], tokenizer: Any, *, max_tokens: int = 320) -> Encoded:
    """Encode rows; a response longer than `LIMIT` is asked for with 8 tokens, as it can't come right anyway."""
    prompts, sft, limits = [], [], []
    for row in rows:
        ids, mask = encode_example(tokenizer, row.example.query, row.example.response)
        response = sum(mask)
        limits.append(min(LIMIT, 4 + response * 3 // 2) if response <= LIMIT else 8)
        prompts.append(encode_prompt(tokenizer, row.example.query))
        over = max(0, len(ids) - max_tokens)
        sft.append(SftRow(tuple(ids[over:]), tuple(mask[over:])))
    # The limit must not tell the length of the right answer: all rows of a category get its largest.
    largest: dict[str, int] = {}
    for row, limit in zip(rows, limits, strict=True):
        largest[row.category] = max(largest.get(row.category, 0), limit)
    return Encoded(tuple(rows), prompts, sft, [largest[row.category] for row in rows])


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
    """One base student that is taught again and again from its first weights."""

    def __init__(self, student: Student, tokenizer: Any, *, end: int) -> None:
        self.student, self.tokenizer, self.end = student, tokenizer, end
        self._base = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
        # The cache of 512 rows takes 5 GB; a machine without a GPU only tries the program.
        on_gpu = student.model.model.embed_tokens.weight.is_cuda
        self._greedy = Greedy(student.model, end=end, rows=512 if on_gpu else 8)

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
        averaging: Averaging = "off",
    ) -> None:
        """Make about `steps` steps of `together` new rows, whatever the number of rows; `replay` as in a round."""
        epochs = max(1, round(steps * together / len(rows)))
        hyper = SftHyper(
            epochs=epochs, learning_rate=rate, batch_tokens=16_384, max_rows_per_batch=together, max_tokens=320,
            seed=seed, compile_mode="off", averaging=averaging,
        )  # fmt: skip
        self.student.model.train()
        fine_tune(self.student, rows, rows[:1], hyper=hyper, replay=replay)

    def ask(self, encoded: Encoded) -> list[Told]:
        """Answer and grade every row."""
        self._greedy.load(self.student.model)
        told = []
        for row, reply in zip(encoded.rows, self._greedy.answer(encoded.prompts, encoded.limits), strict=True):
            text = self.tokenizer.decode(list(reply.ids)) if reply.whole else ""
            good = reply.whole and row.example.grader != "unit_tests" and bool(grade(text, row.example).good)
            told.append(Told(row.category, reply.confidence, good))
        return told


def certified_share(dev: Sequence[Told], exam: Sequence[Told], test: Sequence[Told]) -> tuple[float, float]:
    """Return the share of the test rows answered by certified thresholds, and the share of bad ones among these."""
    names = sorted({item.category for item in exam})
    evidence = {
        name: CategoryEvidence(
            dev=[GradedRow(item.confidence, item.good) for item in dev if item.category == name],
            exam=[GradedRow(item.confidence, item.good) for item in exam if item.category == name],
        )
        for name in names
    }
    # A category that dev shows to be hopeless is not tried: it would only cost the others their level.
    tried = {
        name: item for name, item in evidence.items() if sum(row.good for row in item.dev) >= 0.3 * len(item.dev) > 0
    }
    found = certify(tried, alpha=ALPHA, delta=DELTA) if tried else {}
    thresholds = {name: item.threshold for name, item in found.items() if item.threshold is not None}
    local = [item for item in test if item.confidence >= thresholds.get(item.category, np.inf)]
    return len(local) / len(test), sum(not item.good for item in local) / max(1, len(local))


def ranked_share(test: Sequence[Told], *, precision: float = 0.95) -> float:
    """Return the largest share of rows, most confident first, of which `precision` are right; it promises nothing."""
    good = np.array([item.good for item in sorted(test, key=lambda item: -item.confidence)])
    right = np.cumsum(good) / np.arange(1, len(good) + 1)
    passing = np.flatnonzero(right >= precision)
    return float(passing[-1] + 1) / len(good) if len(passing) else 0.0
