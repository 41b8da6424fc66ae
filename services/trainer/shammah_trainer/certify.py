"""Certification of the promise "risk of a local answer <= alpha", per category (Learn-then-Test, fixed sequence).

Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test" (2021): on dev rows, order thresholds from strict to lax;
on exam rows test "risk > alpha" in that order at level delta / C and stop at the first failure; the last pass is the
threshold. Then the chance that any of the C categories breaks its promise is at most delta. Where dev rows are few,
two such orders share the level. A ladder repeats all this for stricter alphas. It knows scores and grades, no models
and no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.releases import Rung

from shammah_trainer.betting import betting_p_value, log_capital
from shammah_trainer.intervals import binomial_cdf, rows_needed
from shammah_trainer.thresholds import choose_orders, find_best_chance, order_thresholds

__all__ = [
    "LADDER_ALPHAS",
    "NO_NUMBER_HELPS",
    "CategoryEvidence",
    "Certificate",
    "GradedRow",
    "certify",
    "certify_ladder",
    "choose_orders",
    "order_thresholds",
]

NO_NUMBER_HELPS = -1  # rows_missing when the error rate itself is above alpha
# The stricter promises that are tried, as far as they lie below the alpha of the release.
LADDER_ALPHAS = (0.05, 0.02, 0.01)
_LEAST_CHANCE = 0.01  # of its likeliest threshold, for a category to be tried
_MOST_ERRORS = 20_000  # beyond this many errors no exam of ours will ever reach the bound


class GradedRow(NamedTuple):
    """One graded rollout.

    `score` = the validator's quality, `good` = the grader's verdict, `eligible` = passed the router's prefilter,
    `weight` = 1 / propensity with which the row was sampled (1 for plain exam rows).
    """

    score: float
    good: bool
    eligible: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class CategoryEvidence:
    """The graded rows of one category; no query may be in both parts."""

    dev: Sequence[GradedRow]
    exam: Sequence[GradedRow]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the exam proved for one category.

    `threshold` None means: forward everything. `accepted`, `errors` (counts) and `p_value` belong to the threshold, or,
    if there is none, to the best one that was looked at. `rows` = exam rows of the category, `tried` = thresholds
    tested, `local_share` = (weighted) share of the exam rows answered locally, 0 without a threshold. `rows_missing` =
    further accepted exam rows that would certify if the error rate stayed as it is: 0 when certified,
    NO_NUMBER_HELPS when that rate is too close to alpha or above it.
    """

    threshold: float | None
    accepted: int
    errors: int
    rows: int
    p_value: float
    rows_missing: int
    tried: int
    reason: str
    local_share: float
    weighted: bool


@dataclass(frozen=True, slots=True)
class _Arrays:
    scores: NDArray[np.float64]
    bad: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Tried:
    threshold: float
    accepted: int
    errors: int
    p_value: float
    missing: int
    share: float


@dataclass(frozen=True, slots=True)
class _Bound:
    """The test that all thresholds of one round share."""

    alpha: float
    level: float  # delta / C, shared by the orders of a category
    max_weight: float


def certify(
    categories: Mapping[str, CategoryEvidence],
    *,
    alpha: float = 0.05,
    delta: float = 0.05,
    max_weight: float = 50.0,
) -> dict[str, Certificate]:
    """Certify each category; P(any certified one has risk > alpha) <= delta over the draw of the exam.

    C counts the categories that are tried: those with at least one exam row and one dev row past the prefilter that
    dev rows do not show to be hopeless (a chance under `_LEAST_CHANCE`). `max_weight` is the
    largest weight that the sampling can give (50 = audits of 2 %), fixed beforehand; it matters only for categories
    with weights other than 1. Raises InvalidInputError for NaN scores, weights outside (0, max_weight] and
    alpha or delta outside (0, 1).
    """
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise InvalidInputError(f"{name} must lie between 0 and 1, got {value}")
    exams = {name: _arrays(name, evidence.exam) for name, evidence in categories.items()}
    devs = {name: _arrays(name, evidence.dev) for name, evidence in categories.items()}
    able = [n for n in categories if len(exams[n].scores) and bool(devs[n].eligible.any())]
    tried = _choose_tried({name: (devs[name], exams[name]) for name in able}, alpha=alpha, delta=delta)
    bound = _Bound(alpha=alpha, level=delta / max(1, len(tried)), max_weight=max_weight)
    # What it would take if it were tried too.
    outside = replace(bound, level=delta / (len(tried) + 1))
    return {
        name: _no_evidence(exams[name], outside)
        if name not in able
        else _certify_one(devs[name], exams[name], bound if name in tried else outside, tried=name in tried)
        for name in categories
    }


def certify_ladder(
    categories: Mapping[str, CategoryEvidence],
    certificates: Mapping[str, Certificate],
    *,
    alpha: float = 0.05,
    delta: float = 0.05,
    max_weight: float = 50.0,
) -> dict[str, tuple[Rung, ...]]:
    """Certify the stricter promises of `LADDER_ALPHAS`, on the same rows; `certificates` are those of `alpha`.

    What is guaranteed is each alpha on its own: for every a of the ladder, P(any category's threshold for a has risk
    > a) <= delta over the draw of the exam, as each a is a whole `certify` at the level delta / C. That all alphas
    hold at once is only guaranteed with 1 - delta times their number (union bound): the same exam serves them all.
    A caller who asks for one alpha has the full guarantee for it.

    A category without a threshold at `alpha` gets no rungs, and a rung whose threshold lies below that of a laxer
    alpha is left out, so that a stricter wish never serves more. Both only forward more, which breaks no promise.
    Raises as `certify`.
    """
    ladders: dict[str, tuple[Rung, ...]] = dict.fromkeys(categories, ())
    lowest = {name: certificates[name].threshold for name in categories}
    for stricter in (value for value in LADDER_ALPHAS if value < alpha):
        found = certify(categories, alpha=stricter, delta=delta, max_weight=max_weight)
        for name, certificate in found.items():
            threshold, floor = certificate.threshold, lowest[name]
            if threshold is not None and floor is not None and threshold >= floor:
                ladders[name] = (*ladders[name], Rung(stricter, threshold))
                lowest[name] = threshold
    return ladders


def _choose_tried(evidence: Mapping[str, tuple[_Arrays, _Arrays]], *, alpha: float, delta: float) -> set[str]:
    """Return the categories that are worth a share of the level: the worst by dev rows go one by one, while hopeless.

    First all who could not pass even alone; then each one that goes may save the next by its share.
    """

    def chance(name: str, level: float) -> float:
        dev, exam = evidence[name]
        if _is_weighted(exam):
            return 1.0  # the chance would be that of plain rows
        scores, good = dev.scores[dev.eligible], ~dev.bad[dev.eligible]
        # At best all exam rows pass the prefilter; how many do, few dev rows don't tell.
        return find_best_chance(scores, good, exam_rows=len(exam.scores), alpha=alpha, level=level)

    tried = {name for name in evidence if chance(name, delta) >= _LEAST_CHANCE}
    while tried:
        chances = {name: chance(name, delta / len(tried)) for name in sorted(tried)}
        worst = min(chances, key=lambda name: chances[name])
        if chances[worst] >= _LEAST_CHANCE:
            break
        tried.remove(worst)
    return tried


def _expect_rows(dev: _Arrays, exam: _Arrays) -> int:
    """Return how many exam rows will pass the prefilter, as dev rows do."""
    return round(len(exam.scores) * float(dev.eligible.mean()))


def _certify_one(dev: _Arrays, exam: _Arrays, bound: _Bound, *, tried: bool) -> Certificate:
    orders = choose_orders(
        dev.scores[dev.eligible],
        ~dev.bad[dev.eligible],
        exam_rows=_expect_rows(dev, exam),
        alpha=bound.alpha,
        level=bound.level,
    )
    bound = replace(bound, level=bound.level / len(orders))
    found = [_follow(order, exam, bound) for order in orders] if tried else []
    tests = len({result.threshold for passed, failed in found for result in (*passed, *failed)})
    certified = [passed[-1] for passed, _ in found if passed]
    if certified:
        return _write(min(certified, key=lambda t: t.threshold), exam, tests, certified=True, bound=bound)
    # Nothing is certified any more; the exam is only looked at to say what is missing.
    looked = [_test(exam, threshold, bound) for threshold in orders[0]]
    best = min(looked, key=lambda t: (t.missing == NO_NUMBER_HELPS, t.missing, -t.accepted))
    written = _write(best, exam, tests, certified=False, bound=bound)
    return written if tried else replace(written, reason=f"{written.reason} (not tested: dev rows leave it no chance)")


def _follow(order: Sequence[float], exam: _Arrays, bound: _Bound) -> tuple[list[_Tried], list[_Tried]]:
    """Test in order up to the first failure; return what passed, and the failure if there was one."""
    passed: list[_Tried] = []
    for threshold in order:
        result = _test(exam, threshold, bound)
        if result.p_value > bound.level:
            return passed, [result]
        passed.append(result)
    return passed, []


def _test(exam: _Arrays, threshold: float, bound: _Bound) -> _Tried:
    """Test one threshold: p-value of "risk > alpha" among accepted exam rows, and what it lacks."""
    taken = exam.eligible & (exam.scores >= threshold)
    accepted, errors = int(taken.sum()), int((taken & exam.bad).sum())
    if _is_weighted(exam):
        p_value = betting_p_value(exam.bad[taken], exam.weights[taken], alpha=bound.alpha, max_weight=bound.max_weight)
        missing = _weighted_rows_missing(exam, taken, bound)
    else:
        p_value = binomial_cdf(errors, accepted, bound.alpha)
        missing = _rows_missing(errors, accepted, bound)
    share = float(exam.weights[taken].sum() / exam.weights.sum())
    return _Tried(threshold, accepted, errors, p_value, missing, share)


def _rows_missing(errors: int, accepted: int, bound: _Bound) -> int:
    """Smallest m - accepted such that P(Bin(m, alpha) <= k) <= delta / C with k >= m * errors / accepted.

    So the error rate of the m rows is rounded up. Fewest rows for k errors is rows_needed(alpha, delta / C, k), which
    grows slower than k * accepted / errors exactly if the rate is below alpha; the first such k >= errors is bisected.
    """
    if errors == 0:
        return max(0, rows_needed(bound.alpha, bound.level) - accepted)
    if errors >= bound.alpha * accepted:
        return NO_NUMBER_HELPS

    def enough(k: int) -> bool:
        return rows_needed(bound.alpha, bound.level, k) * errors <= k * accepted

    if enough(errors):
        return max(0, rows_needed(bound.alpha, bound.level, errors) - accepted)
    low, high = errors, 2 * errors
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_ERRORS:
            return NO_NUMBER_HELPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return rows_needed(bound.alpha, bound.level, high) - accepted


def _weighted_rows_missing(exam: _Arrays, taken: NDArray[np.bool_], bound: _Bound) -> int:
    """Count * (log(C / delta) / log capital - 1): the log-capital is taken to go on growing evenly by row."""
    won = log_capital(exam.bad[taken], exam.weights[taken], alpha=bound.alpha, max_weight=bound.max_weight)
    if won <= 0.0:
        return NO_NUMBER_HELPS
    count = int(taken.sum())
    return max(0, math.ceil(count * (math.log(1.0 / bound.level) / won - 1.0)))


def _write(result: _Tried, exam: _Arrays, tests: int, *, certified: bool, bound: _Bound) -> Certificate:
    found = f"{result.errors} errors in {result.accepted} accepted answers"
    # A laxer threshold may look good after an earlier one failed; it still takes a new exam row to try again.
    missing = result.missing if result.missing == NO_NUMBER_HELPS else max(1, result.missing)
    if certified:
        reason = f"certified: {found}, p = {result.p_value:.2g} <= {bound.level:.2g}"
    elif missing == NO_NUMBER_HELPS:
        reason = f"not certified: {found}; this error rate cannot prove at most {bound.alpha:g}"
    else:
        reason = f"not certified: {found}; about {missing} more accepted exam rows are missing"
    return Certificate(
        threshold=result.threshold if certified else None,
        accepted=result.accepted,
        errors=result.errors,
        rows=len(exam.scores),
        p_value=result.p_value,
        rows_missing=0 if certified else missing,
        tried=tests,
        reason=reason,
        local_share=result.share if certified else 0.0,
        weighted=_is_weighted(exam),
    )


def _no_evidence(exam: _Arrays, bound: _Bound) -> Certificate:
    what = "no dev row passed the prefilter" if len(exam.scores) else "no exam rows"
    return Certificate(
        threshold=None,
        accepted=0,
        errors=0,
        rows=len(exam.scores),
        p_value=1.0,
        rows_missing=rows_needed(bound.alpha, bound.level),
        tried=0,
        reason=f"not certified: {what}",
        local_share=0.0,
        weighted=_is_weighted(exam),
    )


def _is_weighted(exam: _Arrays) -> bool:
    return bool(np.any(exam.weights != 1.0))


def _arrays(name: str, rows: Sequence[GradedRow]) -> _Arrays:
    table = np.array([(r[0], not r[1], r[2], r[3]) for r in rows], dtype=np.float64).reshape(-1, 4)
    if not bool(np.all(np.isfinite(table))):
        raise InvalidInputError(f"category {name!r}: a score or weight is not a finite number")
    if not bool(np.all(table[:, 3] > 0.0)):
        raise InvalidInputError(f"category {name!r}: a weight is not above 0")
    return _Arrays(table[:, 0], table[:, 1] > 0.0, table[:, 2] > 0.0, table[:, 3])
