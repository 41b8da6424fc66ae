"""From examples to the rows of ids that a generator is trained on: encoded, varied, weighed.

It knows examples, the tokenizer and weights; no model, no batches and no round.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from shammah_chassis.examples import Example
from shammah_chassis.text import normalise_query
from shammah_generator.chat import encode_examples
from tokenizers import Tokenizer

from shammah_trainer.batches import SftRow
from shammah_trainer.computed_examples import compute_examples
from shammah_trainer.hyper import SftHyper
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.substitution import vary
from shammah_trainer.word_dropout import drop_words

Variants = Sequence[tuple[Example, ...]]
_OTHER_SEED = 10_000  # the values of further rows are drawn apart from those of the variants


@dataclass(frozen=True, slots=True)
class FurtherRow:
    """A row that nobody taught, made from the row at `source`; its `variants` take turns with it."""

    source: int
    row: LedgerRow
    variants: tuple[Example, ...]


def encode_rows(
    rows: Sequence[LedgerRow],
    tokenizer: Tokenizer,
    weights: Sequence[float] | None = None,
    variants: Variants | None = None,
) -> list[SftRow]:
    """Encode examples as they will be prompted; rows without weight teach nothing and are left out.

    `variants` of each row take turns with it.
    """
    weights = weights if weights is not None else [1.0] * len(rows)
    variants = variants if variants is not None else [()] * len(rows)
    together = zip(rows, weights, variants, strict=True)
    kept = [((row.example, *others), weight) for row, weight, others in together if weight > 0]
    flat = [(example.query, example.response) for examples, _ in kept for example in examples]
    encoded = (SftRow(tuple(ids), tuple(mask)) for ids, mask in encode_examples(tokenizer, flat))
    found = []
    for examples, weight in kept:
        row, *others = (replace(made, weight=weight) for made in islice(encoded, len(examples)))
        found.append(replace(row, others=tuple(others)))
    return found


def vary_rows(
    rows: Sequence[LedgerRow],
    *,
    count: int,
    word_dropout: float,
    seed: int,
    judges: Sequence[LedgerRow],
    coined: float = 0.0,
) -> Variants:
    """Return up to `count` variants of each row, none of which asks what a judging row asks.

    Other values where the response copies them (`substitution`), some with words that are `coined`; words left out with
    the probability `word_dropout` where it is a label.
    """
    if not count:
        return [()] * len(rows)
    taken = {normalise_query(row.example.query_text) for row in judges}
    examples = [row.example for row in rows]
    varied = vary(examples, count=count, seed=seed, coined=coined, taken=taken)
    if not word_dropout:
        return varied
    rng = random.Random(seed)
    return [
        own or drop_words(example, count=count, chance=word_dropout, rng=rng, taken=taken)
        for own, example in zip(varied, examples, strict=True)
    ]


def make_rows(rows: Sequence[LedgerRow], hyper: SftHyper, *, taken: Collection[str]) -> list[FurtherRow]:
    """Return further rows of each row: up to `hyper.computed` where its answer is computed, with other numbers.

    And up to `hyper.copied` where its response copies values, with other values; both have others in each epoch.
    `taken`: normalised queries that none of them may have.
    """
    turns, examples = max(1, hyper.epochs), [row.example for row in rows]
    further: list[FurtherRow] = []
    if hyper.computed:
        made = compute_examples(examples, count=hyper.computed * turns, seed=hyper.seed, taken=taken)
        further += _take_turns(rows, made, turns)
    if hyper.copied:
        seed = hyper.seed + _OTHER_SEED
        made = vary(examples, count=hyper.copied * turns, seed=seed, coined=hyper.coined, taken=taken)
        further += _take_turns(rows, made, turns)
    return further


def _take_turns(rows: Sequence[LedgerRow], made: Variants, turns: int) -> list[FurtherRow]:
    found = []
    for source, (row, examples) in enumerate(zip(rows, made, strict=True)):
        for start in range(0, len(examples), turns):
            first, *others = examples[start : start + turns]
            found.append(FurtherRow(source, replace(row, example=first), tuple(others)))
    return found


def balance_rows(rows: Sequence[SftRow], balance: float) -> list[SftRow]:
    """Return the rows with weights for `SftHyper.balance`: by tokens, one SQL query outweighs thirty labels."""
    if not balance:
        return list(rows)
    return [
        replace(_balance(row, balance), others=tuple(_balance(other, balance) for other in row.others)) for row in rows
    ]


def _balance(row: SftRow, balance: float) -> SftRow:
    return replace(row, weight=row.weight * max(1, sum(row.mask)) ** -balance)
