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
# Two labels need a handful of rows, a hundred and fifty need thousands.
_HALVES = np.geomspace(2.5, 5120.0, 12)
# Rows of one category are alike: a graded answer tells less than an independent coin. Also keeps the grid's edges soft.
_MOST_GRADED = 100.0
_LEAST = 0.005
ENOUGH = 0.95
"""Accuracy at which a category is answered locally as a whole under the usual promise: more brings nothing."""
FIRST_ROWS = 6
"""Rows of each category before its curve is asked: without any, all that fails looks alike."""


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
        """Return the upper bound of the rise of (accuracy / `ENOUGH`) squared, which ends at 1.

        What can be answered locally under a promise rises faster than accuracy, half right is nothing to promise, and
        is all there when the promise is kept without choosing.
        """
        gains = self._worths(rows + more) - self._worths(rows)
        order = np.argsort(gains)
        return float(gains[order][np.searchsorted(np.cumsum(self._weight[order]), UPPER).clip(max=len(gains) - 1)])

    def _values(self, rows: int) -> Array:
        values: Array = self._starts + (self._ends - self._starts) * rows / (rows + self._halves)
        return values

    def _worths(self, rows: int) -> Array:
        worths: Array = np.minimum(1.0, self._values(rows) / ENOUGH) ** 2
        return worths

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


def allocate(
    prospects: Mapping[str, Prospect],
    budget: int,
    *,
    floor: float = 0.1,
    first: int = FIRST_ROWS,
    least: int = 0,
    step: int = 5,
    worth: float = 0.0,
) -> dict[str, int]:
    """Spread `budget` examples over categories; what a category has not left goes to the others.

    Each is brought to `first` taught rows, and is given `least` at any rate; of the rest a share `floor` is spread
    evenly, and what is left goes by steps where `measure_worth` is largest, as long as that is `worth` or more: with 0
    all of the budget is spent.
    """
    given = dict.fromkeys(prospects, 0)
    wanted = {name: max(first - prospect.rows, least) for name, prospect in prospects.items()}
    _spread(wanted, prospects, given, budget)
    even = math.floor(floor * (budget - sum(given.values())))
    _spread(dict.fromkeys(prospects, budget), prospects, given, even)
    rates = {name: measure_worth(prospect, given[name], step=step) for name, prospect in prospects.items()}
    while (rest := budget - sum(given.values())) > 0:
        able = [name for name, prospect in prospects.items() if _room(prospect, given[name]) > 0]
        best = max(able, key=lambda name: (rates[name], -given[name], name), default=None)
        if best is None or rates[best] < worth:
            break
        given[best] += min(step, rest, _room(prospects[best], given[best]))
        rates[best] = measure_worth(prospects[best], given[best], step=step)
    return given


def measure_worth(prospect: Prospect, given: int = 0, *, step: int = 5) -> float:
    """Return the upper bound of the rise of the overall certified share for each example on top of `given` ones.

    The largest over several distances, the shortest being `step`: the first rows alone may bring nothing. It is in
    proportion to the category's share of the traffic, so a category of rare queries counts less.
    """
    rows, curve = prospect.rows + given, prospect.curve
    return prospect.share * max(curve.upper_worth(rows, more) / more for more in (step, 10 * step, 40 * step))


def _spread(wanted: Mapping[str, int], prospects: Mapping[str, Prospect], given: dict[str, int], budget: int) -> None:
    """Give evenly up to what is wanted and there, the smallest first, so that what they lack goes to the others."""
    most = {name: max(0, min(wanted[name], _room(prospects[name], given[name]))) for name in prospects}
    queue = sorted(prospects, key=lambda name: (most[name], name))
    for index, name in enumerate(queue):
        more = min(budget // (len(queue) - index), most[name])
        given[name] += more
        budget -= more


def _room(prospect: Prospect, given: int) -> int:
    # "As much as anybody wants" must still be a whole number.
    return (1 << 30 if prospect.left is None else prospect.left) - given
