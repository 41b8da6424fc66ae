"""Packed batches of training rows: rows end to end without padding, planned once, filled when their turn comes.

It knows ids, masks and numpy arrays, no model and no device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Step = tuple[Array, ...]
"""The bins of one optimiser step; a bin is the int64 indexes of its rows."""


@dataclass(frozen=True, slots=True)
class SftRow:
    """One example as ids; `mask` is True where an id is to be learned. Both have the same length.

    `others`: variants of the row; it and they take turns, one each epoch.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    weight: float = 1.0
    others: tuple[SftRow, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class RowTable:
    """Rows end to end: `ids` int32 `[T]`; `learned` int64, the places in `ids` that are to be learned, ascending.

    Row r holds `ids[starts[r]:starts[r+1]]` and `learned[first[r]:first[r+1]]`; `weights` float32, one a row. The first
    id of a row is never learned: nothing precedes it. The last `replayed` rows are old ones: see `plan_steps`.

    Behind the n rows lie their variants, those of row r as entries `turns[r]` to `turns[r+1]`, counted from n; no
    `turns`: there are none.
    """

    ids: Array
    starts: Array
    learned: Array
    first: Array
    weights: Array
    replayed: int = 0
    turns: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def lengths(self) -> Array:
        """Tokens of each row, and of each variant behind them."""
        return np.diff(self.starts)

    @property
    def labels(self) -> Array:
        """Learned ids of each row, and of each variant behind them."""
        return np.diff(self.first)

    @property
    def tokens(self) -> int:
        """Tokens of one pass over the rows as they are, without their variants."""
        return int(self.starts[len(self)])

    def __len__(self) -> int:
        """Return the number of rows, without variants."""
        return len(self.turns) - 1 if len(self.turns) else len(self.weights)

    def take_turns(self, rows: Array, epoch: int) -> Array:
        """Return what stands for each of `rows` in an epoch: the row itself in the first, then its variants in turn."""
        if not len(self.turns):
            return rows
        turn = epoch % (1 + np.diff(self.turns)[rows])
        varied: Array = np.where(turn == 0, rows, len(self) + self.turns[rows] + turn - 1)
        return varied


@dataclass(frozen=True, slots=True)
class BinLimits:
    """The most a bin may hold. A single row that is larger is alone in its bin."""

    tokens: int
    rows: int
    labels: int = 1 << 60

    def halved(self) -> BinLimits:
        """Return the limits for half of the memory."""
        return BinLimits(self.tokens // 2, self.rows, max(1, self.labels // 2))


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """One bin as arrays. `bounds` int32 `[S+1]`: where each row starts, and the end; `places` int32 `[T]` in the row.

    One entry per learned id in `at` (the place whose state predicts it), `targets` and `weights`. `tokens` and `rows`
    count the real ones. Without a shape there is no padding.
    """

    ids: Array
    places: Array
    bounds: Array
    at: Array
    targets: Array
    weights: Array
    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class BinShape:
    """Fixed sizes of a filled bin: tokens, segments (rows and padding), learned ids, and the longest segment."""

    tokens: int
    segments: int
    labels: int
    longest: int


def cut_row(row: SftRow, max_tokens: int) -> SftRow | None:
    """Return the row, with the head of its prompt cut to fit `max_tokens`; None when the response alone is too long.

    The end of the prompt is kept: it holds the question and where the answer starts.
    """
    others = tuple(cut for other in row.others if (cut := cut_row(other, max_tokens)) is not None)
    over = len(row.ids) - max_tokens
    if over <= 0:
        return replace(row, others=others) if others != row.others else row
    if any(row.mask[: over + 1]):
        return None
    return SftRow(row.ids[over:], row.mask[over:], row.weight, others)


def tabulate(rows: Sequence[SftRow], replay: Sequence[SftRow] = ()) -> RowTable:
    """Lay rows end to end, old ones (`replay`) behind the others, variants last; rows without ids are left out."""
    old = [row for row in replay if row.ids]
    rows = [row for row in rows if row.ids] + old
    counts = [len(row.others) for row in rows]
    turns = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))) if any(counts) else np.zeros(0, np.int64)
    rows += [other for row in rows for other in row.others]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row.ids) for row in rows], out=starts[1:])
    ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32, int(starts[-1]))
    learn = np.fromiter(chain.from_iterable(row.mask for row in rows), np.bool_, int(starts[-1]))
    learn[starts[:-1]] = False
    learned = np.flatnonzero(learn)
    return RowTable(
        ids=ids,
        starts=starts,
        learned=learned,
        first=np.searchsorted(learned, starts),
        weights=np.array([row.weight for row in rows], np.float32),
        replayed=len(old),
        turns=turns,
    )


def plan_bins(table: RowTable, order: Array, limits: BinLimits) -> list[Array]:
    """Cut the rows, in the given order, into bins that respect `limits`; each bin is filled before the next begins."""
    tokens = np.concatenate(([0], np.cumsum(table.lengths[order])))
    labels = np.concatenate(([0], np.cumsum(table.labels[order])))
    bins = []
    start = 0
    while start < len(order):
        end = min(
            int(np.searchsorted(tokens, tokens[start] + limits.tokens, side="right")) - 1,
            int(np.searchsorted(labels, labels[start] + limits.labels, side="right")) - 1,
            start + limits.rows,
        )
        end = max(end, start + 1)
        bins.append(order[start:end])
        start = end
    return bins


def plan_steps(table: RowTable, *, epochs: int, limits: BinLimits, per_step: int, seed: int) -> list[Step]:
    """Plan all steps of a training: every new row once an epoch, in another random order each time.

    A step has `per_step` bins.

    An epoch replays at most as many old rows as there are new ones, each epoch the next ones in the order given: four
    epochs recall four times the rows that one fixed draw would, for the same work.

    The order within an epoch is random over all rows, not by length: without padding there is nothing to gain by
    sorting, and a batch of one length would be a batch of one category.
    """
    rng = np.random.default_rng(seed)
    new = len(table) - table.replayed
    # Without new rows the old ones are all that there is to learn.
    share = min(table.replayed, new) or table.replayed
    old = new + np.arange(table.replayed)
    steps: list[Step] = []
    for epoch in range(epochs):
        rows = np.concatenate((np.arange(new), np.roll(old, -epoch * share)[:share]))
        bins = plan_bins(table, table.take_turns(rng.permutation(rows), epoch), limits)
        steps += [tuple(bins[at : at + per_step]) for at in range(0, len(bins), per_step)]
    return steps


def split_step(table: RowTable, step: Step, limits: BinLimits) -> Step:
    """Return the same rows in smaller bins: the step teaches the same, in less memory."""
    return tuple(part for rows in step for part in plan_bins(table, rows, limits))


def choose_shape(table: RowTable, limits: BinLimits) -> tuple[BinLimits, BinShape]:
    """Choose one fixed shape for all bins, with room for the learned ids that a random bin holds.

    Returns:
        The limits that bins must respect to fit, and the shape.
    """
    if not len(table):
        return limits, BinShape(128, 2, 128, 64)
    longest, mean = int(table.lengths.max()), float(table.lengths.mean())
    count = min(limits.rows, len(table))
    # A random bin would hold more than this one time in six; it simply ends earlier then.
    tokens = _round_up(max(min(limits.tokens, _reach(table.lengths, count)), longest), 128)
    count = max(1, min(count, int(1.5 * tokens / mean)))
    usual = max(1, min(count, int(tokens / mean)))
    labels = _round_up(max(min(_reach(table.labels, usual), tokens), int(table.labels.max())), 128)
    reach = 64
    while reach < longest:
        reach *= 2
    segments = count + -(-tokens // reach)
    return BinLimits(tokens, count, labels), BinShape(tokens, segments, labels, reach)


def fill_bin(table: RowTable, rows: Array, *, total_weight: float, pad_id: int, shape: BinShape | None) -> Filled:
    """Fill one bin. The weight of each learned id is its row's, divided by `total_weight` (of the whole step).

    With a `shape` the arrays are padded to it: padding is segments of their own, and learned ids of weight nought.
    """
    lengths = table.lengths[rows]
    ids = _take(table.ids, table.starts[rows], lengths)
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(len(ids)) - np.repeat(bounds[:-1], lengths)
    counts = table.labels[rows]
    learned = _take(table.learned, table.first[rows], counts)
    here = learned - np.repeat(table.starts[rows] - bounds[:-1], counts)
    weights = np.repeat(table.weights[rows], counts) / np.float32(max(total_weight, 1e-9))
    filled = Filled(
        ids=ids,
        places=places.astype(np.int32),
        bounds=bounds.astype(np.int32),
        at=(here - 1).astype(np.int32),
        targets=table.ids[learned],
        weights=weights.astype(np.float32),
        tokens=len(ids),
        rows=len(rows),
    )
    return filled if shape is None else _pad(filled, shape, pad_id)


def weigh(table: RowTable, step: Step) -> float:
    """Return the sum of the weights of all ids that a step learns."""
    return float(sum((table.weights[rows] * table.labels[rows]).sum() for rows in step))


def _pad(filled: Filled, shape: BinShape, pad_id: int) -> Filled:
    padding = shape.tokens - filled.tokens
    ends = np.minimum(filled.tokens + shape.longest * np.arange(1, shape.segments - filled.rows + 1), shape.tokens)
    empty = shape.labels - len(filled.at)
    return Filled(
        ids=np.concatenate((filled.ids, np.full(padding, pad_id, np.int32))),
        places=np.concatenate((filled.places, np.arange(padding, dtype=np.int32) % shape.longest)),
        bounds=np.concatenate((filled.bounds, ends.astype(np.int32))),
        at=np.concatenate((filled.at, np.zeros(empty, np.int32))),
        targets=np.concatenate((filled.targets, np.zeros(empty, np.int32))),
        weights=np.concatenate((filled.weights, np.zeros(empty, np.float32))),
        tokens=filled.tokens,
        rows=filled.rows,
    )


def _take(values: Array, starts: Array, lengths: Array) -> Array:
    """Return `values[start:start+length]` for all pairs, end to end."""
    ends = np.cumsum(lengths)
    return values[np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)]


def _reach(sizes: Array, count: int) -> int:
    """Return the mean plus one standard deviation of the sum of `count` random sizes."""
    return int(count * sizes.mean() + count**0.5 * sizes.std())


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
