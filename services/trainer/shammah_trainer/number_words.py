"""Fractions in English words ("three quarters", "twenty-five halves"): read and written. It knows no other words."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_COUNTS = [
    *_ONES,
    *(f"{tens}-{ones}" if ones else tens for tens in _TENS for ones in ("", *_ONES[:9])),
]
MOST = len(_COUNTS)
"""Numerators go from 1 to this."""
_PARTS = {
    **{2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth"},
    **{10: "tenth", 11: "eleventh", 12: "twelfth", 13: "thirteenth", 14: "fourteenth", 15: "fifteenth"},
    **{16: "sixteenth", 17: "seventeenth", 18: "eighteenth", 19: "nineteenth", 20: "twentieth"},
    **{25: "twenty-fifth", 30: "thirtieth", 40: "fortieth", 50: "fiftieth", 100: "hundredth"},
}
_PLURALS = {number: "halves" if number == 2 else f"{name}s" for number, name in _PARTS.items()}
_NUMERATORS = {name: number for number, name in enumerate(_COUNTS, start=1)}
_DENOMINATORS = {name: number for names in (_PARTS, _PLURALS) for number, name in names.items()}


def _any_of(names: dict[str, int]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


PATTERN = rf"(?:{_any_of(_NUMERATORS)}) (?:{_any_of(_DENOMINATORS)})\b"


def read_fraction(text: str) -> Fraction:
    """Return the value of a text that `PATTERN` matches."""
    return Fraction(*split_fraction(text))


def split_fraction(text: str) -> tuple[int, int]:
    """Return numerator and denominator of a text that `PATTERN` matches, as they are written."""
    count, _, part = text.partition(" ")
    return _NUMERATORS[count], _DENOMINATORS[part]


def write_fraction(numerator: int, denominator: int) -> str:
    """Return a fraction in words; the numerator from 1 to 99, the denominator one of those that are read."""
    return f"{_COUNTS[numerator - 1]} {(_PARTS if numerator == 1 else _PLURALS)[denominator]}"
