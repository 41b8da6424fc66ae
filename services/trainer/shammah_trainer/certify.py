"""Certification of the promise "risk of a local answer <= alpha", per category (Learn-then-Test, sequential graph).

Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test" (2021): on dev rows, order thresholds from strict to lax;
on exam rows test "risk > alpha" in that order and stop at the first failure; the last pass is the threshold. The C
categories share delta by their chances, and what one has proved hands half of its share on to the others (their
section on graphical testing; see `level_graph`). Then the chance that any category breaks its promise is at most
delta. Where dev rows are few, two such orders share the level. A ladder repeats all this for stricter alphas. It knows
scores and grades, no models and no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.releases import Rung

from shammah_trainer.betting import betting_p_value
from shammah_trainer.intervals import binomial_cdf, rows_needed
from shammah_trainer.level_graph import join_chains, reject
from shammah_trainer.missing_rows import NO_NUMBER_HELPS, count_missing, count_missing_weighted
from shammah_trainer.thresholds import choose_orders, count_sure, find_best_chance, order_thresholds

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

# The stricter promises that are tried, as far as they lie below the alpha of the release.
LADDER_ALPHAS = (0.05, 0.02, 0.01)
_LEAST_CHANCE = 0.01  # of its likeliest threshold, for a category to be tried
_KEPT = 0.5  # share of its level that an order keeps for laxer thresholds once those that are sure have passed


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
    share: float


@dataclass(frozen=True, slots=True)
class _Bound:
    """The test that all thresholds of one round share."""

    alpha: float
    level: float
    max_weight: float


@dataclass(frozen=True, slots=True)
class _Order:
    """One order of thresholds of a category, and its tests on the exam.

    `share` of delta that it starts with, and `weight` by which it is handed more.
    """

    name: str
    tests: Sequence[_Tried]
    sure: int
    share: float
    weight: float


def certify(
    categories: Mapping[str, CategoryEvidence],
    *,
    alpha: float = 0.05,
    delta: float = 0.05,
    max_weight: float = 50.0,
) -> dict[str, Certificate]:
    """Certify each category; P(any certified one has risk > alpha) <= delta over the draw of the exam.

    C counts the categories that are tried from the start: those with at least one exam row and one dev row past the
    prefilter that dev rows do not show to be hopeless (a chance under `_LEAST_CHANCE`). Those that are only hopeless at
    a C-th of delta wait for what the others hand on. `max_weight` is the
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
    chances, waiting = _choose_tried({name: (devs[name], exams[name]) for name in able}, alpha=alpha, delta=delta)
    plain = _Bound(alpha=alpha, level=delta / max(1, len(chances)), max_weight=max_weight)
    orders = [
        order
        for name in chances | waiting
        for order in _make_orders(
            name,
            (devs[name], exams[name]),
            plain if name in chances else replace(plain, level=delta),
            share=chances.get(name, 0.0) / sum(chances.values()),
            weight=(chances | waiting)[name],
        )
    ]
    found = _certify_tried(orders, exams, plain, delta=delta)
    # What it would take if it were tried too.
    outside = replace(plain, level=delta / (len(chances) + 1))
    for name in categories:
        if name not in able:
            found[name] = _no_evidence(exams[name], outside)
        elif name not in found:
            found[name] = _explain_untried(devs[name], exams[name], outside)
    return {name: found[name] for name in categories}


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
    > a) <= delta over the draw of the exam, as each a is a whole `certify` of its own. That all alphas
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


def _choose_tried(
    evidence: Mapping[str, tuple[_Arrays, _Arrays]], *, alpha: float, delta: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the categories that are worth a share of the level, and those that wait for what is handed on.

    With their chances to pass, at a C-th of the level and at all of it. Who could not pass even with all of it is in
    neither. Of the others the worst by dev rows go one by one to wait, while hopeless at their share: each one that
    goes may save the next.
    """

    def chance(name: str, level: float) -> float:
        dev, exam = evidence[name]
        if _is_weighted(exam):
            return 1.0  # the chance would be that of plain rows
        scores, good = dev.scores[dev.eligible], ~dev.bad[dev.eligible]
        # At best all exam rows pass the prefilter; how many do, few dev rows don't tell.
        return find_best_chance(scores, good, exam_rows=len(exam.scores), alpha=alpha, level=level)

    alone = {name: chance(name, delta) for name in sorted(evidence)}
    tried = {name for name in alone if alone[name] >= _LEAST_CHANCE}
    waiting: dict[str, float] = {}
    while tried:
        chances = {name: chance(name, delta / len(tried)) for name in sorted(tried)}
        worst = min(chances, key=lambda name: chances[name])
        if chances[worst] >= _LEAST_CHANCE:
            return chances, waiting
        tried.remove(worst)
        waiting[worst] = alone[worst]
    return {}, {}


def _expect_rows(dev: _Arrays, exam: _Arrays) -> int:
    """Return how many exam rows will pass the prefilter, as dev rows do."""
    return round(len(exam.scores) * float(dev.eligible.mean()))


def _make_orders(
    name: str, parts: tuple[_Arrays, _Arrays], bound: _Bound, *, share: float, weight: float
) -> list[_Order]:
    dev, exam = parts
    scores, good = dev.scores[dev.eligible], ~dev.bad[dev.eligible]
    rows, alpha, level = _expect_rows(dev, exam), bound.alpha, bound.level
    orders = choose_orders(scores, good, exam_rows=rows, alpha=alpha, level=level)
    return [
        _Order(
            name,
            [_test(exam, threshold, bound) for threshold in order],
            count_sure(scores, good, order, exam_rows=rows, alpha=alpha, level=level),
            share / len(orders),
            weight / len(orders),
        )
        for order in orders
    ]


def _certify_tried(
    orders: Sequence[_Order], exams: Mapping[str, _Arrays], plain: _Bound, *, delta: float
) -> dict[str, Certificate]:
    """Test all orders with one graph; what a category lacks is counted at the level that it holds in the end."""
    if not orders:
        return {}
    lengths = [len(order.tests) for order in orders]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    shares = np.zeros(sum(lengths))
    shares[starts] = [order.share for order in orders]
    edges = join_chains(
        lengths,
        sure=[order.sure for order in orders],
        groups=[order.name for order in orders],
        weights=[order.weight for order in orders],
        keep=_KEPT,
    )
    p_values = np.array([test.p_value for order in orders for test in order.tests])
    rejected, held = reject(p_values, shares, edges, level=delta)
    found: dict[str, Certificate] = {}
    for name in dict.fromkeys(order.name for order in orders):
        own = [(at, order) for at, order in zip(starts, orders, strict=True) if order.name == name and held[at] > 0.0]
        passed = [
            (test, held[at + link]) for at, order in own for link, test in enumerate(order.tests) if rejected[at + link]
        ]
        failed = {o.tests[link].threshold for at, o in own for link in _find_failure(rejected[at : at + len(o.tests)])}
        tests = len({test.threshold for test, _ in passed} | failed)
        if not own:
            continue  # it waited, and nothing was handed on
        if passed:
            laxest, level = min(passed, key=lambda entry: entry[0].threshold)
            found[name] = _write(laxest, exams[name], tests, replace(plain, level=float(level)))
        else:
            at, order = own[0]
            bound = replace(plain, level=float(held[at]))
            found[name] = _explain([t.threshold for t in order.tests], exams[name], tests, bound)
    return found


def _find_failure(rejected: NDArray[np.bool_]) -> list[int]:
    """Return the first link of an order that was tested and failed; none where all passed."""
    return [int(np.argmin(rejected))] if not rejected.all() else []


def _explain_untried(dev: _Arrays, exam: _Arrays, bound: _Bound) -> Certificate:
    scores, good = dev.scores[dev.eligible], ~dev.bad[dev.eligible]
    order = choose_orders(scores, good, exam_rows=_expect_rows(dev, exam), alpha=bound.alpha, level=bound.level)[0]
    written = _explain(order, exam, 0, bound)
    return replace(written, reason=f"{written.reason} (not tested: dev rows leave it no chance)")


def _explain(order: Sequence[float], exam: _Arrays, tests: int, bound: _Bound) -> Certificate:
    """Say what is missing; nothing is certified any more, the exam is only looked at."""
    looked = [_test(exam, threshold, bound) for threshold in order]
    lacking = [(result, _count_missing(result, exam, bound)) for result in looked]
    best, missing = min(lacking, key=lambda entry: (entry[1] == NO_NUMBER_HELPS, entry[1], -entry[0].accepted))
    # A laxer threshold may look good after an earlier one failed; it still takes a new exam row to try again.
    return _write(best, exam, tests, bound, missing=missing if missing == NO_NUMBER_HELPS else max(1, missing))


def _test(exam: _Arrays, threshold: float, bound: _Bound) -> _Tried:
    """Test one threshold: p-value of "risk > alpha" among accepted exam rows."""
    taken = exam.eligible & (exam.scores >= threshold)
    accepted, errors = int(taken.sum()), int((taken & exam.bad).sum())
    if _is_weighted(exam):
        p_value = betting_p_value(exam.bad[taken], exam.weights[taken], alpha=bound.alpha, max_weight=bound.max_weight)
    else:
        p_value = binomial_cdf(errors, accepted, bound.alpha)
    share = float(exam.weights[taken].sum() / exam.weights.sum())
    return _Tried(threshold, accepted, errors, p_value, share)


def _count_missing(result: _Tried, exam: _Arrays, bound: _Bound) -> int:
    if not _is_weighted(exam):
        return count_missing(result.errors, result.accepted, alpha=bound.alpha, level=bound.level)
    taken = exam.eligible & (exam.scores >= result.threshold)
    return count_missing_weighted(
        exam.bad[taken], exam.weights[taken], alpha=bound.alpha, level=bound.level, max_weight=bound.max_weight
    )


def _write(result: _Tried, exam: _Arrays, tests: int, bound: _Bound, *, missing: int = 0) -> Certificate:
    """Write the certificate; `missing` rows of 0 mean that it is certified."""
    found = f"{result.errors} errors in {result.accepted} accepted answers"
    if not missing:
        reason = f"certified: {found}, p = {result.p_value:.2g} <= {bound.level:.2g}"
    elif missing == NO_NUMBER_HELPS:
        reason = f"not certified: {found}; this error rate cannot prove at most {bound.alpha:g}"
    else:
        reason = f"not certified: {found}; about {missing} more accepted exam rows are missing"
    return Certificate(
        threshold=None if missing else result.threshold,
        accepted=result.accepted,
        errors=result.errors,
        rows=len(exam.scores),
        p_value=result.p_value,
        rows_missing=missing,
        tried=tests,
        reason=reason,
        local_share=0.0 if missing else result.share,
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
