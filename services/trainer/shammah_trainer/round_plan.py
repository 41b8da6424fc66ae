"""What one round learns from: the new train rows, a replay of older ones, and the rows that judge it.

Reads the ledger, decides by positions and seeds, and does no training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from shammah_trainer.ledger import Ledger, LedgerRow

# A row is evidence only while nobody trained on its cluster; parts see to it, and this makes sure.
_EVIDENCE = (
    "part = ? AND json_extract(json, '$.grader') NOT IN ('', 'judge') AND NOT EXISTS "
    "(SELECT 1 FROM examples AS other WHERE other.cluster = examples.cluster AND other.part = 'train')"
)


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """Rows of one round. `position`: the last log sequence whose train rows are all in the champion or in `new`.

    `replay` is what the epochs recall, one after another: one old row for each new one, evenly over the categories. A
    small category's rows come again in each epoch; fewer old rows than new ones are all there, once.
    """

    new: tuple[LedgerRow, ...]
    replay: tuple[LedgerRow, ...]
    dev: tuple[LedgerRow, ...]
    exam: tuple[LedgerRow, ...]
    position: int
    seed: int

    @property
    def train(self) -> tuple[LedgerRow, ...]:
        """Everything that the generator learns from in this round, each row once."""
        return self.new + tuple({row.id: row for row in self.replay}.values())

    @property
    def judges(self) -> tuple[LedgerRow, ...]:
        """Dev and exam rows: what they ask may not be trained on."""
        return self.dev + self.exam


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Caps: train rows never learned from, train rows of held rounds, dev and exam rows of each category.

    `epochs`: passes over the new rows, each of which recalls as many old ones.
    """

    fresh_rows: int = 4096
    retried_rows: int = 2048
    judged_rows: int = 1000
    epochs: int = 1


def make_plan(ledger: Ledger, *, champion_position: int, limits: PlanLimits, seed: int) -> RoundPlan:
    """Choose the rows of the next round. `new` is empty when the champion has learned from everything."""
    fresh = ledger.rows("part = 'train' AND sequence > ? AND trained = 0", (champion_position,))
    # What was parked has come back to a later place than its arrival.
    fresh.sort(key=lambda row: row.sequence)
    # Rows of rounds that were held are tried again; the newest of them, as the older ones had their chances.
    retried = ledger.rows("part = 'train' AND sequence > ? AND trained > 0", (champion_position,))
    retried = retried[max(0, len(retried) - limits.retried_rows) :]
    position = ledger.read_meta("sequence")
    if len(fresh) > limits.fresh_rows:
        # Whole messages only: the position must not fall between two rows of one.
        last = fresh[limits.fresh_rows - 1].sequence
        fresh = [row for row in fresh if row.sequence <= last]
        # Places that were not read yet are of messages to come too.
        position = min(position, last)
    new = tuple(fresh + [row for row in retried if row.sequence <= position])
    return RoundPlan(
        new=new,
        replay=_draw_replay(ledger, champion_position, most=len(new), epochs=limits.epochs, seed=seed),
        dev=_judged(ledger, "dev", limits.judged_rows),
        exam=_judged(ledger, "exam", limits.judged_rows),
        position=max(position, champion_position),
        seed=seed,
    )


def find_taught(ledger: Ledger, plan: RoundPlan) -> list[LedgerRow]:
    """Return every train row that is taught by now, those of `plan` included; no row that came after its position.

    So the rounds that a row can have come into, by way of the judges too, are known from their positions.
    """
    taught = ledger.rows("part = 'train' AND sequence <= ?", (plan.position,))
    return taught + [row for row in plan.new if row.sequence > plan.position]


def count_fresh(ledger: Ledger, *, champion_position: int) -> int:
    """Return how many train rows wait that no finished round has learned from."""
    sql = "SELECT COUNT(*) FROM examples WHERE part = 'train' AND sequence > ? AND trained = 0"
    return int(ledger.fetch(sql, (champion_position,))[0][0])


def count_due(ledger: Ledger, *, champion_position: int, stale: bool) -> int:
    """Return `count_fresh`; at least 1 where the champion's index is `stale` and there is anything to learn from."""
    fresh = count_fresh(ledger, champion_position=champion_position)
    if fresh or not stale:
        return fresh
    return int(bool(ledger.fetch("SELECT 1 FROM examples WHERE part IN ('train', 'dev') LIMIT 1")))


def has_new_evidence(ledger: Ledger, *, champion_position: int) -> bool:
    """Say whether dev or exam rows came after the champion: then certifying again may prove more than before."""
    sql = "SELECT 1 FROM examples WHERE part IN ('dev', 'exam') AND sequence > ? LIMIT 1"
    return bool(ledger.fetch(sql, (champion_position,)))


def _draw_replay(ledger: Ledger, champion_position: int, *, most: int, epochs: int, seed: int) -> tuple[LedgerRow, ...]:
    """Draw at most `most` old rows for each epoch, evenly over the categories so that none is forgotten."""
    old = ledger.rows("part = 'train' AND sequence <= ?", (champion_position,))
    rng = random.Random(seed)
    rng.shuffle(old)
    if len(old) <= most:
        return tuple(old)
    by_category: dict[str, list[LedgerRow]] = {}
    for row in old:
        by_category.setdefault(row.category, []).append(row)
    drawn: list[LedgerRow] = []
    for epoch in range(epochs):
        part: list[LedgerRow] = []
        # The smallest reservoirs first: what they can't fill goes to the others.
        queue = sorted(by_category.items(), key=lambda item: (len(item[1]), item[0]))
        for index, (_, rows) in enumerate(queue):
            share = min((most - len(part)) // (len(queue) - index), len(rows))
            # Each epoch goes on where the one before stopped.
            part += [rows[(epoch * share + number) % len(rows)] for number in range(share)]
        drawn += part
    return tuple(drawn)


def _judged(ledger: Ledger, part: str, most: int) -> tuple[LedgerRow, ...]:
    """Return the judged rows of each category; beyond `most` those with the lowest ids, a fixed random choice."""
    kept: dict[str, int] = {}
    chosen: list[LedgerRow] = []
    for row in sorted(ledger.rows(_EVIDENCE, (part,)), key=lambda item: item.id):
        kept[row.category] = kept.get(row.category, 0) + 1
        if kept[row.category] <= most:
            chosen.append(row)
    return tuple(chosen)


def seed_of(round_id: str) -> int:
    """Return the seed of a round from its id, so that a repeated round draws the same rows."""
    return int.from_bytes(round_id.encode(), "big") % (2**31)


def categories_of(rows: Sequence[LedgerRow]) -> list[str]:
    """Return the categories of some rows in alphabetical order."""
    return sorted({row.category for row in rows})


def first_of_each(rows: Sequence[LedgerRow], most: int) -> list[LedgerRow]:
    """Return at most `most` rows of each category; the rows are in random order already (by id)."""
    taken: dict[str, int] = {}
    chosen = []
    for row in rows:
        taken[row.category] = taken.get(row.category, 0) + 1
        if taken[row.category] <= most:
            chosen.append(row)
    return chosen
