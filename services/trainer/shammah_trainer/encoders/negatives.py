"""Pairs for the validator's text stage: teacher responses, and worse ones made from them.

Each made negative spoils one thing and is labelled for that thing only; what can't be known stays unlabelled. Plain
texts; it knows no network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from shammah_trainer.encoders.results import TextRow

UNKNOWN = -1.0
"""Target of a score that a pair says nothing about."""
_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
_LEAST_WORDS = 4
_LABEL_WORDS = 4
_LABELS_PER_ROW = 0.5


@dataclass(frozen=True, slots=True)
class Pair:
    """A (query, response) with targets for on_topic, coherence and hallucination: 1, 0 or `UNKNOWN`."""

    query: str
    response: str
    targets: tuple[float, float, float]
    kind: str


@dataclass(slots=True)
class _Pool:
    """Responses by category, and what may replace a name."""

    by_category: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def has_labels(self, category: str) -> bool:
        """Tell whether responses of the category are labels: short, and the same ones again and again."""
        responses = self.by_category[category]
        distinct = set(responses)
        short = all(len(response.split()) <= _LABEL_WORDS for response in distinct)
        return short and 1 < len(distinct) <= max(2, _LABELS_PER_ROW * len(responses))


def make_pairs(rows: Sequence[TextRow], *, limit: int, generator: np.random.Generator) -> list[Pair]:
    """Make at most `limit` pairs: of each drawn row the teacher's response and one negative.

    Kinds of negatives take turns among those that the row allows: `label` (another label of the category),
    `same` (another query's response of the category), `other` (a response of another category), `cut`, `shuffled`,
    `number`, `name`.
    """
    pool = _gather(rows)
    pairs: list[Pair] = []
    used: dict[str, int] = {}
    for number in generator.permutation(len(rows)):
        if len(pairs) + 1 > limit:
            break
        row = rows[number]
        pairs.append(Pair(row.query, row.response, (1.0, 1.0, 0.0), "teacher"))
        offers = _offer_negatives(row, pool, generator)
        if offers and len(pairs) < limit:
            # The kind that was made least so far, so that no score goes without negatives.
            chosen = min(offers, key=lambda pair: used.get(pair.kind, 0))
            used[chosen.kind] = used.get(chosen.kind, 0) + 1
            pairs.append(chosen)
    return pairs


def _gather(rows: Sequence[TextRow]) -> _Pool:
    pool = _Pool()
    for row in rows:
        pool.by_category.setdefault(row.category, []).append(row.response)
        pool.names.extend(_NAME.findall(row.response))
    pool.names = sorted(set(pool.names))
    return pool


def _offer_negatives(row: TextRow, pool: _Pool, generator: np.random.Generator) -> list[Pair]:
    offers: list[Pair] = []

    def offer(kind: str, response: str | None, targets: tuple[float, float, float]) -> None:
        if response and response != row.response:
            offers.append(Pair(row.query, response, targets, kind))

    same = [response for response in pool.by_category[row.category] if response != row.response]
    if same:
        other_response = same[int(generator.integers(len(same)))]
        if pool.has_labels(row.category):
            # A wrong label is an answer to the question, and a false one.
            offer("label", other_response, (1.0, 1.0, 1.0))
        else:
            offer("same", other_response, (0.0, 1.0, UNKNOWN))
    offer("other", _draw_from_another_category(row, pool, generator), (0.0, 1.0, UNKNOWN))
    words = row.response.split()
    if len(words) >= _LEAST_WORDS:
        kept = int(generator.integers(len(words) // 4, 3 * len(words) // 4)) + 1
        offer("cut", " ".join(words[: min(kept, len(words) - 1)]), (1.0, 0.0, UNKNOWN))
        offer("shuffled", " ".join(words[i] for i in generator.permutation(len(words))), (1.0, 0.0, UNKNOWN))
    offer("number", _change_number(row.response, generator), (1.0, 1.0, 1.0))
    offer("name", _change_name(row.response, pool.names, generator), (1.0, 1.0, 1.0))
    return offers


def _draw_from_another_category(row: TextRow, pool: _Pool, generator: np.random.Generator) -> str | None:
    others = [category for category in pool.by_category if category != row.category]
    if not others:
        return None
    responses = pool.by_category[others[int(generator.integers(len(others)))]]
    return responses[int(generator.integers(len(responses)))]


def _change_number(response: str, generator: np.random.Generator) -> str | None:
    found = list(_NUMBER.finditer(response))
    if not found:
        return None
    match = found[int(generator.integers(len(found)))]
    digits = [int(digit) for digit in match.group()]
    place = int(generator.integers(len(digits)))
    digits[place] = (digits[place] + int(generator.integers(1, 10))) % 10
    return response[: match.start()] + "".join(map(str, digits)) + response[match.end() :]


def _change_name(response: str, names: Sequence[str], generator: np.random.Generator) -> str | None:
    found = list(_NAME.finditer(response))
    others = [name for name in names if name not in response]
    if not found or not others:
        return None
    match = found[int(generator.integers(len(found)))]
    return response[: match.start()] + others[int(generator.integers(len(others)))] + response[match.end() :]
