"""Formulas behind answers that follow from the numbers of their queries.

Queries that differ in their numbers only ("Convert 3.2km to meters.": "3200") may all be answered by one formula. One
is believed if it gives the very text of every such answer, and if there are enough digits of them that a wrong one
would not. It knows numbers and clock times, no words: what a query means is only what its answers show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Protocol

from shammah_trainer import number_words

VALUE = re.compile(
    r"(?<![\w.:-])(?:(?P<clock>(?:1[0-2]|[1-9]):[0-5]\d [AP]M)\b"
    rf"|(?P<words>{number_words.PATTERN}))"
    r"|(?<![\w.:])(?<!\d,)(?P<number>-?\d+(?:\.\d+)?)(?![\d:]|\.\d|,\d)"
)
"""A clock time of twelve hours, a fraction in words, or a number without exponent and separators, units behind it."""
MOST_VALUES = 3
_DAY = 24 * 60
_MOST_PLACES = 16
_MOST_ROUNDED = 12
_PROOF_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Value:
    """A number, or the minute of a day that a clock shows."""

    amount: Fraction
    clock: bool = False

    @classmethod
    def read(cls, text: str) -> Value | None:
        """Return the value that a whole text is; None if it is none."""
        match = VALUE.fullmatch(text)
        if match is None:
            return None
        if match["clock"]:
            return cls(_read_clock(text), clock=True)
        return cls(number_words.read_fraction(text) if match["words"] else Fraction(text))

    def write(self) -> str | None:
        """Return it as text: digits without an exponent and without zeros at the end; None if they would not end."""
        return _write_clock(self.amount) if self.clock else _write_number(self.amount)


class Formula(Protocol):
    """Gives the answer to the values of a query; None where it has none."""

    def __call__(self, values: Sequence[Value]) -> Value | None:
        """Return the answer, or None."""


@dataclass(frozen=True, slots=True)
class Product:
    """`factor` times each number to its power: products, quotients, units."""

    powers: tuple[int, ...]
    factor: Fraction = Fraction(1)

    def __call__(self, values: Sequence[Value]) -> Value | None:
        """None where it would divide by zero."""
        amount = self.factor
        for value, power in zip(values, self.powers, strict=True):
            if power < 0 and not value.amount:
                return None
            amount *= value.amount**power
        return Value(amount)


@dataclass(frozen=True, slots=True)
class Sum:
    """`constant` plus each number times its sign."""

    signs: tuple[int, ...]
    constant: Fraction = Fraction(0)

    def __call__(self, values: Sequence[Value]) -> Value:
        """Return the sum."""
        return Value(
            sum((sign * value.amount for value, sign in zip(values, self.signs, strict=True)), start=self.constant)
        )


@dataclass(frozen=True, slots=True)
class Distance:
    """The difference of two numbers without its sign."""

    def __call__(self, values: Sequence[Value]) -> Value:
        """Return the difference."""
        return Value(abs(values[0].amount - values[1].amount))


@dataclass(frozen=True, slots=True)
class Rounding:
    """The first number rounded to decimal places: `places`, or as many as the second number says; -1 are tens.

    A number half way between two has no answer: people do not agree on it.
    """

    places: int | None = None

    def __call__(self, values: Sequence[Value]) -> Value | None:
        """None half way, and for places that are no whole number or beyond 12."""
        wanted = values[1].amount if self.places is None else Fraction(self.places)
        if wanted.denominator != 1 or abs(wanted) > _MOST_ROUNDED:
            return None
        return _round(values[0].amount, Fraction(10) ** -int(wanted))


@dataclass(frozen=True, slots=True)
class Nearest:
    """The first number rounded to a multiple of the second, as `Rounding` does."""

    def __call__(self, values: Sequence[Value]) -> Value | None:
        """None half way, and where the second number is not above 0."""
        unit = values[1].amount
        return _round(values[0].amount, unit) if unit > 0 else None


@dataclass(frozen=True, slots=True)
class Between:
    """Minutes from one clock time to the next time that a clock shows the other; `first` is which of the two."""

    first: int

    def __call__(self, values: Sequence[Value]) -> Value:
        """Return the minutes, 0 to 1,439."""
        return Value((values[1 - self.first].amount - values[self.first].amount) % _DAY)


@dataclass(frozen=True, slots=True)
class Shift:
    """A clock time and so many minutes, times `scale` (60: hours), from it."""

    clock: int
    scale: int

    def __call__(self, values: Sequence[Value]) -> Value:
        """Return the clock time."""
        return Value((values[self.clock].amount + self.scale * values[1 - self.clock].amount) % _DAY, clock=True)


def find_formulas(rows: Sequence[tuple[tuple[Value, ...], str]]) -> list[Formula]:
    """Return the formulas that give every answer of (values, answer), where so many digits were not met by chance.

    All rows have as many values, of the same kinds. A formula may have one number that a first row tells; the answers
    of the others, in decimal digits, must be five together. Several may fit, where the rows leave them open.
    """
    known = [(values, answer) for values, answer in rows if Value.read(answer) is not None]
    if len(known) < len(rows) or not known or not 0 < len(known[0][0]) <= MOST_VALUES:
        return []
    # A factor can't be read off an answer of zero; the shortest of the others leaves the most digits as evidence.
    known.sort(key=lambda row: (row[1] == "0", _count_digits(row[1])))
    first = _count_digits(known[0][1])
    digits = sum(_count_digits(answer) for answer in {answer for _, answer in known})
    return [
        formula
        for formula in _propose(*known[0])
        if digits - first * isinstance(formula, Product | Sum) >= _PROOF_DIGITS
        and all(give(formula, *row) for row in known)
    ]


def give(formula: Formula, values: Sequence[Value], answer: str) -> bool:
    """Say whether a formula gives this text."""
    found = formula(values)
    return found is not None and found.write() == answer


def _propose(values: tuple[Value, ...], answer: str) -> Iterator[Formula]:
    """Yield formulas of the values' kinds, with the number that the answer of this row tells."""
    told = Value.read(answer)
    kinds = tuple(value.clock for value in values)
    if told is None:
        return
    if not any(kinds) and not told.clock:
        yield from _propose_numbers(values, told.amount)
    elif kinds == (True, True) and not told.clock:
        yield from (Between(0), Between(1))
    elif sorted(kinds) == [False, True] and told.clock:
        yield from (Shift(kinds.index(True), scale) for scale in (1, -1, 60, -60))


def _propose_numbers(values: tuple[Value, ...], told: Fraction) -> Iterator[Formula]:
    if len(values) == 1:
        yield from (Rounding(places) for places in range(-_MOST_ROUNDED, _MOST_ROUNDED + 1))
    elif len(values) == 2:
        yield from (Distance(), Rounding(), Nearest())
    for powers in product((-1, 0, 1), repeat=len(values)):
        if any(powers):
            plain, summed = Product(powers)(values), Sum(powers)(values)
            if plain is not None and plain.amount:
                yield Product(powers, told / plain.amount)
            yield Sum(powers, told - summed.amount)


def _round(amount: Fraction, unit: Fraction) -> Value | None:
    steps = amount / unit
    return None if (2 * steps).denominator == 1 and steps.denominator != 1 else Value(round(steps) * unit)


def _count_digits(answer: str) -> int:
    """Return how many digits of an answer tell something; a clock shows one of 1,440 times."""
    return 3 if ":" in answer else len(answer.strip("-").replace(".", "").strip("0"))


def _read_clock(text: str) -> Fraction:
    hour, minute = text[:-3].split(":")
    return Fraction(int(hour) % 12 * 60 + int(minute) + (12 * 60 if text.endswith("PM") else 0))


def _write_clock(amount: Fraction) -> str | None:
    if amount.denominator != 1:
        return None
    hour, minute = divmod(int(amount), 60)
    return f"{hour % 12 or 12}:{minute:02d} {'PM' if hour >= 12 else 'AM'}"


def _write_number(amount: Fraction) -> str | None:
    places = 0
    while amount.denominator != 1:
        amount, places = amount * 10, places + 1
        if places > _MOST_PLACES:
            return None
    if not places:
        return str(amount.numerator)
    digits = str(abs(amount.numerator)).rjust(places + 1, "0")
    return f"{'-' if amount < 0 else ''}{digits[:-places]}.{digits[-places:]}"
