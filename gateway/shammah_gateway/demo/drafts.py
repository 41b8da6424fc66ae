"""How one row of the demo workload is worded: a tiny grammar of alternatives and slots.

It does not know the categories; each of their modules brings its own patterns and words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Draft:
    """One worded task: the raw `text`, the `query` = instruction + text, and the right answer."""

    text: str
    query: str
    reference: str


def expand(pattern: str, rng: Random, slots: Mapping[str, Sequence[str]]) -> str:
    """Word a pattern: `[a|b|]` is one of its alternatives (may be nested), `{name}` one word of that slot.

    Slots are filled first and may hold alternatives themselves. Raises KeyError for an unknown slot.
    """
    text = _SLOT.sub(lambda match: rng.choice(slots[match[1]]), pattern)
    while _INNERMOST.search(text):
        text = _INNERMOST.sub(lambda match: rng.choice(match[1].split("|")), text)
    return " ".join(text.split()).replace(" ,", ",").replace(" .", ".").replace(" ?", "?")


def vary_case(text: str, rng: Random) -> str:
    """Write it as people do: mostly with a capital and an end mark, sometimes without."""
    first = text[:1].upper() if rng.random() < 0.7 else text[:1]
    end = "" if text[-1:] in "?.!" or rng.random() < 0.4 else "."
    return first + text[1:] + end
