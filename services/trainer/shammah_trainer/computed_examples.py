"""Further examples of what is computed: other numbers in a query, and the answer that its formula gives.

A student that has seen a thousand sums has not learned to add; what it needs is more of them, and no teacher has to
write these. Formulas are those that all rows of one wording agree with (`formulas`). Numbers are drawn digit by digit
in the shapes that were seen: as many digits, as many decimals, the same sign. It knows texts, no meaning: a wording
whose rows happen to follow a formula is taken at its rows' word.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from shammah_chassis.examples import Example
from shammah_chassis.text import normalise_query

from shammah_trainer.formulas import MOST_VALUES, VALUE, Formula, Value, find_formulas
from shammah_trainer.number_words import MOST, split_fraction, write_fraction

GRADERS = ("numeric", "exact")
_TRIES = 6
_NEW_CHANCE = 0.9
_ROUND_CHANCE = 0.5
_SMALL = 20
_MOST_CHARACTERS = 1024  # a wording that long is a text with numbers in it, not a sum


@dataclass(frozen=True, slots=True)
class _Asked:
    """The values of one query, where they stand in its last message."""

    example: Example
    spans: tuple[tuple[int, int], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        content = self.example.query[-1].content
        return tuple(content[start:end] for start, end in self.spans)

    @property
    def values(self) -> tuple[Value, ...]:
        return tuple(value for text in self.texts if (value := Value.read(text)) is not None)

    def put(self, texts: Sequence[str], answer: str) -> Example:
        """Return the example with other values and another answer."""
        last = self.example.query[-1]
        content = last.content
        for (start, end), text in reversed(list(zip(self.spans, texts, strict=True))):
            content = content[:start] + text + content[end:]
        query = (*self.example.query[:-1], replace(last, content=content))
        return replace(self.example, query=query, response=answer, reference=answer)


def compute_examples(
    examples: Sequence[Example], *, count: int, seed: int, taken: Collection[str] = ()
) -> list[tuple[Example, ...]]:
    """Return up to `count` further examples of the wording of each; none where no formula gives all answers of it.

    All are different. `taken`: normalised queries (`normalise_query`) that none may have, above all those that judge.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    asked = [_find_values(example) for example in examples]
    for number, own in enumerate(asked):
        if own is not None:
            groups[_wording(own)].append(number)
    rng = random.Random(seed)
    seen = {normalise_query(example.query_text) for example in examples} | set(taken)
    found: list[tuple[Example, ...]] = [()] * len(examples)
    for numbers in groups.values():
        rows = [own for number in numbers if (own := asked[number]) is not None]
        formulas = find_formulas([(row.values, row.example.response) for row in rows])
        if formulas:
            longest = max(len(row.example.response) for row in rows)
            for number in numbers:
                found[number] = tuple(_draw(rows, formulas, longest, count, rng, seen))
    return found


def _find_values(example: Example) -> _Asked | None:
    """Return where a query has its values; None where there are none, or too many, or its answer is no value."""
    content = example.query[-1].content
    if example.grader not in GRADERS or len(content) > _MOST_CHARACTERS or Value.read(example.response) is None:
        return None
    spans = tuple(match.span() for match in VALUE.finditer(content))
    return _Asked(example, spans) if 0 < len(spans) <= MOST_VALUES else None


def _wording(asked: _Asked) -> tuple[object, ...]:
    """Return what two rows must share to be of one wording: all but the values, and what kinds these are."""
    content, example = asked.example.query[-1].content, asked.example
    edges = [0, *(edge for span in asked.spans for edge in span), len(content)]
    between = tuple(content[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2))
    return example.category, example.grader, example.query[:-1], between, tuple(value.clock for value in asked.values)


def _draw(
    rows: Sequence[_Asked],
    formulas: Sequence[Formula],
    longest: int,
    count: int,
    rng: random.Random,
    seen: set[str],
) -> list[Example]:
    """Draw values in the shapes of random rows; what comes out too long, or is not clear, is drawn again."""
    drawn: list[Example] = []
    for _ in range(count * _TRIES):
        if len(drawn) == count:
            break
        row = rng.choice(rows)
        texts = [_draw_value(text, rng) if rng.random() < _NEW_CHANCE else text for text in row.texts]
        answer = _agree(formulas, texts)
        if answer is None or len(answer) > longest:
            continue
        made = row.put(texts, answer)
        query = normalise_query(made.query_text)
        if query not in seen:
            seen.add(query)
            drawn.append(made)
    return drawn


def _agree(formulas: Sequence[Formula], texts: Sequence[str]) -> str | None:
    """Return what all formulas that the rows leave open say of some values; None where they differ."""
    values = [value for text in texts if (value := Value.read(text)) is not None]
    answers = {None if (found := formula(values)) is None else found.write() for formula in formulas}
    return answers.pop() if len(answers) == 1 else None


def _draw_value(text: str, rng: random.Random) -> str:
    """Return another value of the same shape."""
    if " " in text and ":" not in text:
        return _draw_fraction(text, rng)
    if ":" in text:
        return f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d} {rng.choice(('AM', 'PM'))}"
    sign, whole, decimals = re.fullmatch(r"(-?)(\d+)\.?(\d*)", text).groups()  # type: ignore[union-attr]
    if not decimals:
        # Tens and thousands are asked more often than by chance.
        zeros = len(whole) - len(whole.rstrip("0")) if rng.random() < _ROUND_CHANCE and whole.strip("0") else 0
        digits = _draw_digits(whole[: len(whole) - zeros], rng) + "0" * zeros
        return digits if digits == "0" else sign + digits
    if whole.strip("0"):
        return f"{sign}{_draw_digits(whole, rng)}.{_draw_digits(decimals[::-1], rng)[::-1]}"
    # What stands before the first digit other than 0 is how large a number is.
    small = len(decimals) - len(decimals.lstrip("0"))
    digits = _draw_digits(decimals[small:], rng)
    return f"{sign}{whole}.{decimals[:small]}{digits[:-1]}{digits[-1] if digits[-1] != '0' else rng.randint(1, 9)}"


def _draw_fraction(text: str, rng: random.Random) -> str:
    """Return another fraction in words, of as many parts: none that could be told by fewer."""
    numerator, denominator = split_fraction(text)
    most = _SMALL if numerator <= _SMALL else MOST
    others = [number for number in range(1, most + 1) if math.gcd(number, denominator) == 1]
    return write_fraction(rng.choice(others), denominator)


def _draw_digits(digits: str, rng: random.Random) -> str:
    """Return as many random digits, the first of them not 0 unless it is alone."""
    first = rng.randint(0, 9) if len(digits) == 1 else rng.randint(1, 9)
    return str(first) + "".join(str(rng.randint(0, 9)) for _ in digits[1:])
