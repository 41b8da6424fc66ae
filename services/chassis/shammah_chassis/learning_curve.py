"""What more examples of a category would bring: a learning curve fitted to what was measured, with its uncertainty.

    accuracy(n) = s + (A - s) * n / (n + h)

s before anything is taught, A where it ends, h the rows after which half of the way is gone. On a grid of (s, A, h)
with a flat prior (h in equal ratios) the graded answers weigh as binomial draws. What is unknown stays wide, so the
upper bound of the gain is large where little was tried, and small where many rows brought nothing: failure alone is no
reason to teach. It knows neither what an example costs nor how it is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
UPPER = 0.8
"""Quantile of the gain that counts as its upper bound."""
_STARTS = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9])
_ENDS = np.linspace(0.0, 1.0, 21)
_HALVES = np.geomspace(20.0, 5120.0, 13)
# Rows of one category are alike: a graded answer tells less than an independent coin. Also keeps the grid's edges soft.
_MOST_GRADED = 100.0
_LEAST = 0.005


@dataclass(frozen=True, slots=True)
class Point:
    """After `rows` taught examples, `good` of `graded` answers were good."""

    rows: int
    good: float
    graded: float


class Curve:
    """The posterior over learning curves of one category."""

    def __init__(self, points: Sequence[Point]) -> None:
        starts, ends, halves = (grid.ravel() for grid in np.meshgrid(_STARTS, _ENDS, _HALVES, indexing="ij"))
        able = ends >= starts
        self._starts, self._ends, self._halves = starts[able], ends[able], halves[able]
        weight = np.zeros(len(self._starts))
        for point in points:
            if point.graded <= 0:
                continue
            scale = min(1.0, _MOST_GRADED / point.graded)
            share = np.clip(self._values(point.rows), _LEAST, 1.0 - _LEAST)
            bad = point.graded - point.good
            weight += scale * (point.good * np.log(share) + bad * np.log1p(-share))
        weight = np.exp(weight - weight.max())
        self._weight: Array = weight / weight.sum()

    def accuracy(self, rows: int) -> float:
        """Return the expected accuracy after `rows` taught examples, 0 to 1."""
        return float(self._weight @ self._values(rows))

    def gain(self, rows: int, more: int) -> float:
        """Return the expected rise of the accuracy by `more` examples on top of `rows`."""
        return float(self._weight @ self._gains(rows, more))

    def upper_gain(self, rows: int, more: int) -> float:
        """Return the upper bound of that rise: its quantile `UPPER`."""
        gains = self._gains(rows, more)
        order = np.argsort(gains)
        return float(gains[order][np.searchsorted(np.cumsum(self._weight[order]), UPPER).clip(max=len(gains) - 1)])

    def upper_worth(self, rows: int, more: int) -> float:
        """Return the upper bound of the rise of the accuracy's square.

        What can be answered locally under a promise rises faster than accuracy: half right is nothing to promise.
        """
        gains = self._values(rows + more) ** 2 - self._values(rows) ** 2
        order = np.argsort(gains)
        return float(gains[order][np.searchsorted(np.cumsum(self._weight[order]), UPPER).clip(max=len(gains) - 1)])

    def _values(self, rows: int) -> Array:
        values: Array = self._starts + (self._ends - self._starts) * rows / (rows + self._halves)
        return values

    def _gains(self, rows: int, more: int) -> Array:
        return self._values(rows + more) - self._values(rows)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A category as a place to spend on: its curve, `rows` it was taught, its `share` of the traffic.

    `left` is how many more can be taught; None: as many as anybody wants.
    """

    curve: Curve
    rows: int
    share: float
    left: int | None = None


def allocate(prospects: Mapping[str, Prospect], budget: int, *, floor: float = 0.2, step: int = 5) -> dict[str, int]:
    """Spread `budget` examples: a share `floor` evenly, the rest by steps where the upper bound of the gain is largest.

    The gain of a step is the rise of the overall share of good answers for each example, so a category of rare queries
    counts less. What a category has not left goes to the others.
    """
    given = dict.fromkeys(prospects, 0)
    _spread(prospects, given, math.floor(floor * budget))
    while (rest := budget - sum(given.values())) > 0:
        gains = {
            name: prospect.share * _best_rate(prospect.curve, prospect.rows + given[name], step)
            for name, prospect in prospects.items()
            if _room(prospect, given[name]) > 0
        }
        if not gains:
            break
        best = max(gains, key=lambda name: (gains[name], -given[name], name))
        given[best] += min(step, rest, _room(prospects[best], given[best]))
    return given


def _best_rate(curve: Curve, rows: int, step: int) -> float:
    """Return the largest worth for each example, looking some way ahead: the first rows alone may bring nothing."""
    return max(curve.upper_worth(rows, more) / more for more in (step, 10 * step, 40 * step))


def _spread(prospects: Mapping[str, Prospect], given: dict[str, int], budget: int) -> None:
    """Give evenly, the smallest stocks first, so that what they lack goes to the others."""
    queue = sorted(prospects, key=lambda name: (_room(prospects[name], 0), name))
    for index, name in enumerate(queue):
        given[name] = min(budget // (len(queue) - index), int(min(_room(prospects[name], 0), budget)))
        budget -= given[name]


def _room(prospect: Prospect, given: int) -> int:
    # "As much as anybody wants" must still be a whole number.
    return (1 << 30 if prospect.left is None else prospect.left) - given
