"""Which quality thresholds to test on the exam, and from which ones on: decided on dev rows alone.

Learn-then-Test allows any order that does not look at the exam's labels or scores, and several starts that share the
level (algorithm 1 of Angelopoulos et al. 2021). This module knows of exam rows only how many there will be.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError

from shammah_trainer.intervals import beta_binomial_cdf, binomial_cdf, rows_needed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_HALF = 0.5
_TIMES_ALPHA = 3.0  # times as probably bad as is promised on average, the worst answer may be by its score
_FEW_ROWS = 100  # dev rows under which scores are drawn together, so that few reach what many would
# What follows was chosen on studies whose exams were looked at (DESIGN.md, decisions 67 and 68).
_STARTS = 2
_BORNE = 2  # errors on the exam that the strict start should bear
_BEFORE = 4  # thresholds from the strict start to the likely one
_MOST = 24  # thresholds from the likely start on
_FINE = 96
_SURE = 0.8  # of the best chance
_HOPELESS = 0.02  # laxer thresholds with less of a chance are not tested
# What the judge says of the accepted rows counts as so many further dev rows, but as at most a third of the dev rows.
# With 88 dev and 230 exam rows drawn from real ones this certifies a mean share of .345, and .332 without.
_JUDGED_ROWS, _JUDGED_PART = 40.0, 1 / 3
_BISECTIONS = 40


class Order(NamedTuple):
    """Thresholds from strict to lax.

    `starts` = positions at which it starts with equal parts of the level. `sure` = how many are about as likely to pass
    as the likeliest of them, or stricter.
    """

    thresholds: list[float]
    starts: list[int]
    sure: int


def find_least_score(rows: int, alpha: float) -> float:
    """Return the score below which no threshold lies, given the dev rows past the prefilter.

    A score is a calibrated P(good), and an exam speaks for its own mix of queries only: where the mix differs, it is
    the answers just above a lax threshold that are bad. So what the judge holds for more probably wrong than right is
    forwarded however lax a threshold the exam allows; with enough dev rows also what it holds for more than three times
    as probably bad as is promised (below .85 for an alpha of .05).
    """
    return max(_HALF, 1.0 - _TIMES_ALPHA * alpha) if rows >= _FEW_ROWS else _HALF


def choose_order(
    scores: Sequence[float] | Floats, goods: Sequence[bool] | Bools, *, exam_rows: int, alpha: float, level: float
) -> Order | None:
    """Return what to test at `level`; None where no dev row has the least score.

    A row is accepted at score >= threshold.

    `scores` and `goods` are the dev rows that passed the prefilter, `exam_rows` the expected exam rows that do. A fixed
    sequence stops at its first failure, so thresholds too strict to gather evidence must not come first. The likely
    start has the most rows to expect, if what passes at some chance has passed all before it. Dev rows tell it
    roughly: where it is too lax, its test fails for errors that a stricter one leaves out. So another start lies at the
    strictest threshold that leaves enough exam rows to bear `_BORNE` errors at its part of the level, where there is
    one: a small exam has no level to share. What it proves goes on to the likely start, and adds to that one's part.
    The order ends where the chance to pass is gone.

    Raises InvalidInputError for NaN or infinite scores and unequal lengths.
    """
    values, good = _check(scores, goods)
    grid = _spread(values, _FINE, find_least_score(len(values), alpha))
    if not len(grid):
        return None
    chances = _find_chances(values, good, grid, exam_rows=exam_rows, alpha=alpha, level=level)
    counts = exam_rows * _count_accepted(values, grid) / len(values)
    likely = int(np.argmax(_expect_gains(chances, counts)))
    end = max(likely, int(np.flatnonzero(chances >= min(_HOPELESS, chances.max())).max()))
    taken, starts = _pick(likely, end, _MOST), [0]
    strict = np.flatnonzero(counts[:likely] >= rows_needed(alpha, level / _STARTS, _BORNE))
    if len(strict):
        before = _pick(int(strict[0]), likely, _BEFORE + 1)[:-1]
        taken, starts = np.concatenate((before, taken)), [0, len(before)]
    return Order([float(grid[at]) for at in taken], starts, max(starts[-1] + 1, _count_sure(chances[taken])))


def find_best_chance(
    scores: Sequence[float] | Floats, goods: Sequence[bool] | Bools, *, exam_rows: int, alpha: float, level: float
) -> float:
    """Return the chance of the threshold that is likeliest to pass; few dev rows leave much open, and rule out little.

    0 where no dev row has the least score. Raises as `choose_order`.
    """
    values, good = _check(scores, goods)
    grid = _spread(values, _FINE, find_least_score(len(values), alpha))
    return float(_find_chances(values, good, grid, exam_rows=exam_rows, alpha=alpha, level=level).max(initial=0.0))


def _check(scores: Sequence[float] | Floats, goods: Sequence[bool] | Bools) -> tuple[Floats, Bools]:
    values = np.asarray(scores, dtype=np.float64)
    good = np.asarray(goods, dtype=np.bool_)
    if values.shape != good.shape or values.ndim != 1:
        raise InvalidInputError(f"need as many scores as labels, got {len(values)} and {len(good)}")
    if not bool(np.all(np.isfinite(values))):
        raise InvalidInputError("a dev score is not a finite number")
    return values, good


def _spread(values: Floats, at_most: int, least: float) -> Floats:
    """Thresholds, strict to lax, none below `least`; accepted counts are spread evenly, the laxest is among them."""
    allowed = np.sort(values[values >= least])[::-1]
    distinct = np.unique(allowed)[::-1]
    if len(distinct) <= at_most:
        return distinct
    ranks = np.ceil(np.arange(1, at_most + 1) * len(allowed) / at_most).astype(int) - 1
    return np.unique(allowed[ranks])[::-1]


def _pick(first: int, last: int, at_most: int) -> NDArray[np.int64]:
    """Positions from `first` to `last`, both among them, spread evenly."""
    return np.unique(np.linspace(first, last, min(at_most, last - first + 1)).round().astype(np.int64))


def _count_accepted(values: Floats, grid: Floats) -> NDArray[np.int64]:
    return np.asarray((values >= grid[:, None]).sum(axis=1), dtype=np.int64)


def _expect_gains(chances: Floats, counts: Floats) -> Floats:
    """Rows to expect of each start: those of each later threshold with the least chance on the way to it."""
    at = np.arange(len(chances))
    later = at > at[:, None]
    reached = np.minimum.accumulate(np.where(at >= at[:, None], chances, 1.0), axis=1)
    return np.asarray(chances * counts + np.where(later, reached * np.diff(counts, prepend=0.0), 0.0).sum(axis=1))


def _count_sure(chances: Floats) -> int:
    best = int(np.argmax(chances))
    unlikely = np.flatnonzero(chances[best:] < _SURE * chances[best])
    return best + int(unlikely[0]) if len(unlikely) else len(chances)


def _find_chances(
    values: Floats, good: Bools, grid: Floats, *, exam_rows: int, alpha: float, level: float
) -> NDArray[np.float64]:
    """P(the exam certifies a threshold), for each of `grid`, if the exam is like dev: what dev leaves open counts."""
    chances = np.zeros(len(grid))
    risks = _judge_risks(values, good)
    prior = min(_JUDGED_ROWS, _JUDGED_PART * len(values))
    for number, threshold in enumerate(grid):
        accepted = values >= threshold
        count = int(accepted.sum())
        errors = int((accepted & ~good).sum())
        expected = round(exam_rows * count / len(values))
        allowed = _count_allowed(expected, alpha, level)
        if allowed >= 0:
            # Jeffreys' prior, and the judge's.
            bad = errors + 0.5 + prior * float(risks[accepted].mean())
            chances[number] = beta_binomial_cdf(allowed, expected, bad, count + 1.0 + prior - bad)
    return chances


def _judge_risks(values: Floats, good: Bools) -> Floats:
    """P(bad) of each dev row as the judge ranks them, its log-odds shifted until they add up to what dev rows show."""
    if not len(values):
        return values
    odds = 1.0 / np.clip(values, 1e-3, 1.0 - 1e-3) - 1.0
    shown = (float((~good).sum()) + 0.5) / (len(values) + 1.0)
    low, high = 1e-9, 1e9
    for _ in range(_BISECTIONS):
        factor = (low * high) ** 0.5
        low, high = (factor, high) if float((1.0 / (1.0 + 1.0 / (factor * odds))).mean()) < shown else (low, factor)
    return np.asarray(1.0 / (1.0 + 1.0 / (low * odds)))


def _count_allowed(rows: int, alpha: float, level: float) -> int:
    """Return the most errors among `rows` that still pass; -1 when none would."""
    return bisect.bisect_right(range(rows), level, key=lambda k: binomial_cdf(k, rows, alpha)) - 1
