"""What easy, medium and hard mean: in words for a teacher that writes, by a proxy for one that has only rows.

The proxy orders the rows of one category by length and rarity: longer queries, and queries with words that are rare in
their category, tend to be the harder ones. It is no measurement: nobody has tried the rows, and a short trick question
is "easy" to it. It knows no teacher.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import log2

from shammah_chassis.text import split_tokens

MEANINGS = {
    "easy": (
        "one step, common words, short; what everybody would answer in the same way. "
        "As easy as the easiest of the samples, or easier."
    ),
    "medium": (
        "as a usual user would ask it: usual length and wording, one or two details that matter. "
        "As hard as the samples in the middle."
    ),
    "hard": (
        "still with exactly one right response, but easy to get wrong: rare words, indirect or longer wording, several "
        "details at once, negations, answers that are near to each other. As hard as the hardest sample, or harder."
    ),
}
# Which third is handed out first, and where it goes on when that is empty: the nearest one, harder before easier.
_THIRDS = {"easy": (0, 1, 2), "medium": (1, 2, 0), "hard": (2, 1, 0)}


def rate_queries(queries: Sequence[str]) -> list[float]:
    """Return the proxy of each query, 0 (easiest) to 1, among the others of its category.

    The mean of two ranks: of the number of tokens, and of the mean surprise of a token in bits (how rare it is among
    all these queries). Equal queries have equal values.
    """
    tokens = [split_tokens(query) for query in queries]
    counts = Counter(token for row in tokens for token in row)
    total = max(1, counts.total())
    surprise = [sum(-log2(counts[token] / total) for token in row) / max(1, len(row)) for row in tokens]
    pairs = zip(_rank([float(len(row)) for row in tokens]), _rank(surprise), strict=True)
    return [(long + rare) / 2 for long, rare in pairs]


def split_thirds(queries: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    """Return the indices of the easier, middle and harder third; within a third in the order given."""
    rated = rate_queries(queries)
    order = sorted(range(len(queries)), key=lambda index: (rated[index], index))
    cuts = (0, (len(order) + 2) // 3, (2 * len(order) + 2) // 3, len(order))
    low, middle, high = (sorted(order[start:end]) for start, end in pairwise(cuts))
    return low, middle, high


def order_thirds(thirds: Sequence[Sequence[int]], difficulty: str) -> list[Sequence[int]]:
    """Return the thirds of `split_thirds` in the order of the difficulty: its own first."""
    return [thirds[third] for third in _THIRDS[difficulty]]


def _rank(values: Sequence[float]) -> list[float]:
    """Return the mean rank of each value, scaled to 0..1; equal values share one."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    most = max(1, len(values) - 1)
    return [sum(places[value]) / len(places[value]) / most for value in values]
