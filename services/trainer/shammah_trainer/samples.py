"""Dev examples for those who test the student: drawn evenly over categories. Exam rows never leave the trainer."""

from __future__ import annotations

import random
from collections.abc import Sequence

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example

from shammah_trainer.ingest import strip_example
from shammah_trainer.ledger import Ledger

MOST_SAMPLES = 1000


def draw_samples(ledger: Ledger, count: int, categories: Sequence[str], seed: int) -> list[Example]:
    """Draw dev examples, evenly over the categories asked for (all when none is named).

    Raises:
        InvalidInputError: `count` out of range, or a category without any row.
    """
    if not 1 <= count <= MOST_SAMPLES:
        raise InvalidInputError(f"count is {count}; allowed: 1 to {MOST_SAMPLES}")
    known = ledger.count_rows(after=0)
    unknown = sorted(set(categories) - known.keys())
    if unknown:
        raise InvalidInputError(f"category {unknown[0]!r} is not known; known: {', '.join(sorted(known)) or 'none'}")
    pools: dict[str, list[Example]] = {}
    for row in ledger.rows("part = 'dev'"):
        if not categories or row.category in categories:
            pools.setdefault(row.category, []).append(row.example)
    return [strip_example(example) for example in _draw_evenly(pools, count, random.Random(seed))]


def _draw_evenly(pools: dict[str, list[Example]], count: int, rng: random.Random) -> list[Example]:
    """Draw `count` examples round robin over the categories, each pool shuffled."""
    for name in sorted(pools):
        rng.shuffle(pools[name])
    drawn: list[Example] = []
    while len(drawn) < count and any(pools.values()):
        for name in sorted(pools):
            if pools[name] and len(drawn) < count:
                drawn.append(pools[name].pop())
    return drawn
