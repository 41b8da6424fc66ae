"""Whether what is asked now is like what was asked at the exam: shares of bins, compared a window at a time.

The measure is the population stability index, sum (p - q) ln(p / q). Under "nothing changed" it is (1/n + 1/m) times a
chi-square with bins - 1 degrees of freedom (Yurdakul 2018), n and m being the two sample sizes. A window has drifted
when the index is large (0.2, the usual mark for "moderate") and that surprising (1 in 1,000). It knows no queries.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

LARGE = 0.2
SMALL = 0.1
SURPRISE_Z = 3.0902
"""Normal quantile of 0.999."""
SCORE_WINDOW = 200
MIX_WINDOW = 500
_SMOOTH = 0.5


@dataclass(slots=True)
class ScoreDrift:
    """Scores of one category against the exam's: `edges` between bins, `reference` exam rows of each bin."""

    edges: tuple[float, ...]
    reference: tuple[int, ...]
    counts: list[int] = field(default_factory=list)
    drifted: bool = False
    index: float = 0.0

    def add(self, score: float) -> None:
        """Count one score; at the end of a window the state may change."""
        if not self.edges or len(self.reference) != len(self.edges) + 1:
            return
        bins = len(self.reference)
        self.counts = self.counts or [0] * bins
        self.counts[bisect.bisect_right(self.edges, score)] += 1
        if sum(self.counts) < SCORE_WINDOW:
            return
        self.index = stability_index(self.counts, self.reference)
        sizes = (SCORE_WINDOW, sum(self.reference))
        self.drifted = judge(self.index, bins=bins, sizes=sizes, before=self.drifted)
        self.counts = []


@dataclass(slots=True)
class MixDrift:
    """Categories of queries against those of the first window under the same release."""

    reference: Counter[str] = field(default_factory=Counter)
    window: Counter[str] = field(default_factory=Counter)
    drifted: bool = False
    index: float = 0.0

    def add(self, category: str) -> None:
        """Count one query; at the end of a window the state may change."""
        if self.reference.total() < MIX_WINDOW:
            self.reference[category] += 1
            return
        self.window[category] += 1
        if self.window.total() < MIX_WINDOW:
            return
        names = sorted(self.reference.keys() | self.window.keys())
        if len(names) > 1:
            self.index = stability_index(
                [self.window[name] for name in names], [float(self.reference[name]) for name in names]
            )
            self.drifted = judge(self.index, bins=len(names), sizes=(MIX_WINDOW, MIX_WINDOW), before=self.drifted)
        else:  # one category then as now
            self.index, self.drifted = 0.0, False
        self.window = Counter()


def stability_index(counts: Sequence[int], reference: Sequence[float]) -> float:
    """Return the population stability index of two samples over the same bins, half a row added to each bin."""
    ours, theirs = sum(counts) + _SMOOTH * len(counts), sum(reference) + _SMOOTH * len(reference)
    index = 0.0
    for count, expected in zip(counts, reference, strict=True):
        p, q = (count + _SMOOTH) / ours, (expected + _SMOOTH) / theirs
        index += (p - q) * math.log(p / q)
    return index


def judge(index: float, *, bins: int, sizes: tuple[int, int], before: bool) -> bool:
    """Say whether a window has drifted; what had drifted stays so until its index is small again."""
    if before:
        return index >= SMALL
    scale = 1.0 / sizes[0] + 1.0 / sizes[1]
    return index >= max(LARGE, scale * chi_square_quantile(bins - 1))


def chi_square_quantile(freedom: int) -> float:
    """Return the 0.999 quantile of a chi-square, by Wilson and Hilferty (2 % high at 2 degrees of freedom)."""
    spread = 2.0 / (9.0 * freedom)
    return float(freedom * (1.0 - spread + SURPRISE_Z * math.sqrt(spread)) ** 3)
