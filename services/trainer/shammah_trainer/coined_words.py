"""Words that nobody has seen, in the place of rare ones: what is to be copied can then not be told by heart.

A student whose variants take names from a list learns the list, and writes "Vermont" for "Vernon". A coined word has
the beginning of one rare word and the end of another, so that it looks like a name of the category and is none. Words
that several queries have stay as they are: they may say what a value means ("tonight", "Ghana"). It knows letters and
how often a word was seen, no language.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]{4,}")
_MOST_SEEN = 2  # queries that a rare word is in
_FEWEST = 20  # rare words of a category, under which coined ones would be a list again
_LEAST_PART = 2  # letters of each of the two words
_TRIES = 4


class Coiner:
    """The rare words of some queries."""

    def __init__(self, texts: Iterable[str]) -> None:
        seen = Counter(word for text in texts for word in {match[0].lower() for match in _WORD.finditer(text)})
        rare = sorted(word for word, count in seen.items() if count <= _MOST_SEEN)
        self._rare = rare if len(rare) >= _FEWEST else []
        self._replaced = frozenset(rare)
        self._seen = frozenset(seen)

    def coin(self, text: str, rng: random.Random) -> str:
        """Return the text with another word for each rare one, written as that one is: Title, UPPER or lower."""
        if not self._rare:
            return text
        return _WORD.sub(lambda match: self._coin_word(match[0], rng), text)

    def _coin_word(self, word: str, rng: random.Random) -> str:
        if word.lower() not in self._replaced:
            return word
        made = next((new for _ in range(_TRIES) if (new := self._join_two(rng)) not in self._seen), word.lower())
        if word.istitle():
            return made.title()
        return made.upper() if word.isupper() else made

    def _join_two(self, rng: random.Random) -> str:
        head, tail = rng.sample(self._rare, 2)
        cut = rng.randint(_LEAST_PART, len(head) - _LEAST_PART)
        return head[:cut] + tail[rng.randint(_LEAST_PART, len(tail) - _LEAST_PART) :]
