"""Certification of the promise "risk of a local answer <= alpha", per category (Learn-then-Test, sequential graph).

Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test" (2021): on dev rows, order thresholds from strict to lax;
on exam rows test "risk > alpha" in that order and stop at the first failure; the last pass is the threshold. The C
categories share delta by their chances, and what one has proved hands most of its share on to the others (their
section on graphical testing; see `level_graph`). Then the chance that any category breaks its promise is at most
delta. An order may have two starts, which share its level. A ladder repeats all this for stricter alphas. It knows
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
from shammah_trainer.thresholds import Order, choose_order, find_best_chance, find_least_score

__all__ = [
    "LADDER_ALPHAS",
    "MAX_WEIGHT",
    "NO_NUMBER_HELPS",
    "CategoryEvidence",
    "Certificate",
    "GradedRow",
    "certify",
    "certify_ladder",
]

# The stricter promises that are tried, as far as they lie below the alpha of the release.
LADDER_ALPHAS = (0.05, 0.02, 0.01)
_LEAST_CHANCE = 0.01  # of its likeliest threshold, for a category to be tried
_KEPT = 0.3  # share of its level that an order keeps for laxer thresholds once those that are sure have passed


class GradedRow(NamedTuple):
    """One graded rollout.

    `score` = the validator's quality, `good` = the grader's verdict, `eligible` = passed the router's prefilter,
    `weight` = 1 / propensity with which the row was sampled (1 for plain exam rows).
    """

    score: float
    good: bool
    eligible: bool = True
    weight: float = 1.0


MAX_WEIGHT = 50.0
"""The largest weight of an exam row: 1 / the smallest propensity, that of audits."""


@dataclass(frozen=True, slots=True)
class CategoryEvidence:
    """The graded rows of one category; no query may be in both parts.

    An exam without weights other than 1 is taken for a plain sample: it must not be what is left of one that was drawn
    with other weights, of which none came.
    """

    dev: Sequence[GradedRow]
    exam: Sequence[GradedRow]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the exam proved for one category.

    `threshold` None means: forward everything. `accepted`, `errors` (counts) and `p_value` belong to the threshold, or,
    if there is none, to the best one that was looked at. `rows` = exam rows of the category, `tried` = thresholds
    tested, `local_share` = (weighted) share of the exam rows answered locally, 0 without a threshold. `rows_missing` =
    further accepted exam rows that would certify if the error rate stayed as it is: 0 when certified,
    NO_NUMBER_HELPS when that rate is too close to alpha or above it, or no dev row has the least score.
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
class _Tests:
    """The order of thresholds of a category, and its tests on the exam.

    `share` of delta that it starts with, and `weight` by which it is handed more.
    """

    order: Order
    done: Sequence[_Tried]
    share: float
    weight: float


def certify(
    categories: Mapping[str, CategoryEvidence],
    *,
    alpha: float = 0.05,
    delta: float = 0.05,
    max_weight: float = MAX_WEIGHT,
) -> dict[str, Certificate]:
    """Certify each category; P(any certified one has risk > alpha) <= delta over the draw of the exam.

    C counts the categories that are tried from the start: those with at least one exam row and one dev row past the
    prefilter with the least score that dev rows do not show to be hopeless (a chance under `_LEAST_CHANCE`). Those that
    are only hopeless at a C-th of delta wait for what the others hand on. `max_weight` is the largest weight that the
    sampling can give (50 = audits of 2 %), fixed beforehand; it matters only for categories with weights other than 1.
    Raises InvalidInputError for NaN scores, weights outside (0, max_weight] and alpha or delta outside (0, 1).
    """
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise InvalidInputError(f"{name} must lie between 0 and 1, got {value}")
    exams = {name: _arrays(name, evidence.exam) for name, evidence in categories.items()}
    devs = {name: _arrays(name, evidence.dev) for name, evidence in categories.items()}
    able = [n for n in categories if len(exams[n].scores) and _has_candidate(devs[n], alpha)]
    chances, waiting = _choose_tried({name: (devs[name], exams[name]) for name in able}, alpha=alpha, delta=delta)
    plain = _Bound(alpha=alpha, level=delta / max(1, len(chances)), max_weight=max_weight)
    shares = {name: chance / sum(chances.values()) for name, chance in chances.items()}
    tests = {
        name: _make_tests(
            (devs[name], exams[name]),
            replace(plain, level=delta * shares.get(name, 1.0)),
            share=shares.get(name, 0.0),
            weight=weight,
        )
        for name, weight in (chances | waiting).items()
    }
    found = _certify_tried(tests, exams, plain, delta=delta)
    # What it would take if it were tried too.
    outside = replace(plain, level=delta / (len(chances) + 1))
    for name in categories:
        if name not in able:
            found[name] = _no_evidence(devs[name], exams[name], outside)
        elif name not in found:
            found[name] = _explain_untried(devs[name], exams[name], outside)
    return {name: found[name] for name in categories}


def certify_ladder(
    categories: Mapping[str, CategoryEvidence],
    certificates: Mapping[str, Certificate],
    *,
    alpha: float = 0.05,
    delta: float = 0.05,
    max_weight: float = MAX_WEIGHT,
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


def _has_candidate(dev: _Arrays, alpha: float) -> bool:
    return bool(np.any(dev.scores[dev.eligible] >= find_least_score(int(dev.eligible.sum()), alpha)))


def _order(dev: _Arrays, exam: _Arrays, bound: _Bound) -> Order:
    scores, good = dev.scores[dev.eligible], ~dev.bad[dev.eligible]
    order = choose_order(scores, good, exam_rows=_expect_rows(dev, exam), alpha=bound.alpha, level=bound.level)
    assert order is not None  # who has no candidate is not able
    return order


def _make_tests(parts: tuple[_Arrays, _Arrays], bound: _Bound, *, share: float, weight: float) -> _Tests:
    dev, exam = parts
    order = _order(dev, exam, bound)
    return _Tests(order, [_test(exam, threshold, bound) for threshold in order.thresholds], share, weight)


def _certify_tried(
    tests: Mapping[str, _Tests], exams: Mapping[str, _Arrays], plain: _Bound, *, delta: float
) -> dict[str, Certificate]:
    """Test all orders with one graph; what a category lacks is counted at the level that it holds in the end."""
    lengths = [len(own.done) for own in tests.values()]
    edges = join_chains(
        lengths,
        starts=[own.order.starts for own in tests.values()],
        sure=[own.order.sure for own in tests.values()],
        weights=[own.weight for own in tests.values()],
        keep=_KEPT,
    )
    p_values = np.array([test.p_value for own in tests.values() for test in own.done])
    shares = [
        own.share / len(own.order.starts) if link in own.order.starts else 0.0
        for own in tests.values()
        for link in range(len(own.done))
    ]
    rejected, held = reject(p_values, np.array(shares), edges, level=delta)
    found: dict[str, Certificate] = {}
    for (name, own), end in zip(tests.items(), np.cumsum(lengths), strict=True):
        passed, levels = (part[end - len(own.done) : end] for part in (rejected, held))
        tried = int((levels > 0.0).sum())
        if passed.any():
            laxest = int(np.flatnonzero(passed).max())
            bound = replace(plain, level=float(levels[laxest]))
            found[name] = _write(own.done[laxest], exams[name], tried, bound)
        elif tried:  # else it waited, and nothing was handed on
            found[name] = _explain(own.order.thresholds, exams[name], tried, replace(plain, level=float(levels.max())))
    return found


def _explain_untried(dev: _Arrays, exam: _Arrays, bound: _Bound) -> Certificate:
    written = _explain(_order(dev, exam, bound).thresholds, exam, 0, bound)
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


def _no_evidence(dev: _Arrays, exam: _Arrays, bound: _Bound) -> Certificate:
    what, missing = "no exam rows", rows_needed(bound.alpha, bound.level)
    if len(exam.scores) and not bool(dev.eligible.any()):
        what = "no dev row passed the prefilter"
    elif len(exam.scores):
        least = find_least_score(int(dev.eligible.sum()), bound.alpha)
        what, missing = f"no dev row is judged {least:g} or better", NO_NUMBER_HELPS
    return Certificate(
        threshold=None,
        accepted=0,
        errors=0,
        rows=len(exam.scores),
        p_value=1.0,
        rows_missing=missing,
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
