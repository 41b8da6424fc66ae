"""Token-budget batches of training rows: rows of like length together, right-padded.

It knows ids and masks, no model and no optimiser.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LENGTH_JITTER = 0.15  # so that a batch is not always made of the same rows (and of one category)


@dataclass(frozen=True, slots=True)
class SftRow:
    """One example as ids; `mask` is True where an id is to be learned. Both have the same length."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded rows. `ids` is int64 `[B, T]`; the rest has one entry per learned id (N in all).

    `rows`, `positions`: where the hidden state that predicts it stands; `targets`: the id; `weights`: its row's weight.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor


def cut_row(row: SftRow, max_tokens: int) -> SftRow | None:
    """Return the row, with the head of its prompt cut to fit `max_tokens`; None when the response alone is too long.

    The end of the prompt is kept: it holds the question and where the answer starts.
    """
    over = len(row.ids) - max_tokens
    if over <= 0:
        return row
    if any(row.mask[: over + 1]):
        return None
    return SftRow(row.ids[over:], row.mask[over:], row.weight)


def plan_batches(rows: Sequence[SftRow], *, batch_tokens: int, max_rows: int, rng: random.Random) -> list[list[SftRow]]:
    """Group rows into batches of at most `batch_tokens` padded tokens and `max_rows` rows, in random order."""
    keyed = sorted(rows, key=lambda row: len(row.ids) * (1 + _LENGTH_JITTER * (rng.random() - 0.5)))
    batches: list[list[SftRow]] = []
    current: list[SftRow] = []
    longest = 0
    for row in keyed:
        grown = max(longest, len(row.ids))
        if current and (len(current) >= max_rows or grown * (len(current) + 1) > batch_tokens):
            batches.append(current)
            current, grown = [], len(row.ids)
        current.append(row)
        longest = grown
    if current:
        batches.append(current)
    rng.shuffle(batches)
    return batches


def collate(rows: Sequence[SftRow], *, pad_id: int, device: torch.device) -> Batch:
    """Pad rows on the right and list the positions whose next id is to be learned.

    With causal attention the padding changes nothing before it, so no attention mask is needed.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    where: list[tuple[int, int, int, float]] = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        where += [(index, at - 1, row.ids[at], row.weight) for at, learn in enumerate(row.mask) if learn and at > 0]
    places = torch.tensor([item[:3] for item in where], dtype=torch.long).reshape(-1, 3)
    weights = torch.tensor([item[3] for item in where], dtype=torch.float32)
    return Batch(
        ids=ids.to(device),
        rows=places[:, 0].to(device),
        positions=places[:, 1].to(device),
        targets=places[:, 2].to(device),
        weights=weights.to(device),
    )
