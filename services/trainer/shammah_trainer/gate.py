"""The gate: whether a candidate release may take over from the champion, judged on paired exam rows.

It compares outcomes of two students on the same rows and gives a verdict with reasons. It knows no models, and it
does not act: publishing belongs to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shammah_chassis.errors import InvalidInputError

from shammah_trainer.paired import difference_interval, holm, rise_p_value, worse_p_value

Verdict = Literal["promote", "held", "undecided"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One release on the exam rows of one category.

    `good` = row id -> the student's response was good; `local` = ids of the rows that this release would have answered
    locally under its certified threshold (empty without one).
    """

    good: Mapping[str, bool]
    local: Set[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class CategoryGate:
    """Paired comparison of one category. Shares are 0..1, `interval` is for after - before in accuracy (95 %)."""

    n: int
    gains: int
    losses: int
    accuracy_before: float
    accuracy_after: float
    interval: tuple[float, float]
    local_share_before: float
    local_share_after: float
    p_value_worse: float
    held: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict over all categories, with the figures and reasons it rests on."""

    verdict: Verdict
    reasons: list[str]
    n: int
    gains: int
    losses: int
    accuracy_before: float
    accuracy_after: float
    interval: tuple[float, float]
    local_share_before: float
    local_share_after: float
    p_value_share_falls: float
    p_value_share_rises: float
    p_value_accuracy_rises: float
    categories: dict[str, CategoryGate]

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings: what JSON can hold."""
        report = asdict(self)
        for part in (report, *report["categories"].values()):
            part["interval"] = list(part["interval"])
        return report


@dataclass(frozen=True, slots=True)
class _Counts:
    """Paired counts; "local" counts rows that only one of the two releases answers locally."""

    n: int
    gains: int
    losses: int
    before: int
    after: int
    local_before: int
    local_after: int
    local_gains: int
    local_losses: int


_NOTHING = (0,) * 9


def decide(
    champion: Mapping[str, Outcomes],
    candidate: Mapping[str, Outcomes],
    *,
    tolerance_points: float | Mapping[str, float] = 3.0,
    level: float = 0.05,
) -> GateReport:
    """Promote, hold or leave undecided: the champion stays then, and a later round may decide.

    Held: a category is worse than its tolerance in points (exact one-sided test, `paired.worse_p_value`) or the
    certified local share falls (exact McNemar); these hypotheses are Holm-corrected together, so an equal candidate is
    held with probability <= level. Otherwise promoted when the local share rises, or when it is not lower and the
    overall accuracy rises (exact McNemar each, Holm over the two, so an equal candidate is promoted with probability
    <= level). Otherwise undecided. Only differences beyond chance count: equal students hardly ever have equal rows.

    Both mappings need the same categories and row ids, else InvalidInputError; so do an unknown category in
    `tolerance_points`, a tolerance outside [0, 100) and a level outside (0, 1). A category without a tolerance of its
    own has 3 points.
    """
    if not 0.0 < level < 1.0:
        raise InvalidInputError(f"level must lie between 0 and 1, got {level}")
    _check_paired(champion, candidate)
    tolerances = _tolerances(tolerance_points, sorted(champion))
    counts = {name: _count(champion[name], candidate[name]) for name in sorted(champion)}
    whole = _Counts(*map(sum, zip(_NOTHING, *map(_values, counts.values()), strict=True)))
    worse = {
        name: worse_p_value(c.gains, c.losses, c.n, tolerance=tolerances[name] / 100.0) for name, c in counts.items()
    }
    falls = rise_p_value(whole.local_losses, whole.local_gains)
    *held, share_held = holm([*worse.values(), falls], level)
    categories = {
        name: _report_category(c, worse[name], tolerances[name], held=bad)
        for (name, c), bad in zip(counts.items(), held, strict=True)
    }
    return _report(whole, categories, share_held=share_held, p_falls=falls, level=level)


def _report(
    whole: _Counts, categories: dict[str, CategoryGate], *, share_held: bool, p_falls: float, level: float
) -> GateReport:
    p_share = rise_p_value(whole.local_gains, whole.local_losses)
    p_accuracy = rise_p_value(whole.gains, whole.losses)
    share = f"certified local share {_percent(whole.local_before, whole.n)} -> {_percent(whole.local_after, whole.n)}"
    share_rises, accuracy_rises = holm([p_share, p_accuracy], level)
    accuracy = f"accuracy {_percent(whole.before, whole.n)} -> {_percent(whole.after, whole.n)}"
    reasons = [f"{name}: {part.reason}" for name, part in categories.items() if part.held]
    if share_held:
        reasons.append(f"{share}: falls (p = {p_falls:.2g})")
    verdict: Verdict = "undecided"
    if reasons:
        verdict = "held"
    elif whole.n == 0:
        reasons = ["no exam rows to compare on"]
    elif share_rises:
        verdict, reasons = "promote", [f"{share}: rises (p = {p_share:.2g})"]
    elif accuracy_rises and whole.local_after >= whole.local_before:
        verdict = "promote"
        reasons = [f"{share}: not lower", f"{accuracy}: rises (p = {p_accuracy:.2g})"]
    else:
        reasons = [f"{share}: no significant rise (p = {p_share:.2g})", f"{accuracy}: p of a rise = {p_accuracy:.2g}"]
    return GateReport(
        verdict=verdict,
        reasons=reasons,
        n=whole.n,
        gains=whole.gains,
        losses=whole.losses,
        accuracy_before=_share(whole.before, whole.n),
        accuracy_after=_share(whole.after, whole.n),
        interval=difference_interval(whole.gains, whole.losses, whole.n),
        local_share_before=_share(whole.local_before, whole.n),
        local_share_after=_share(whole.local_after, whole.n),
        p_value_share_falls=p_falls,
        p_value_share_rises=p_share,
        p_value_accuracy_rises=p_accuracy,
        categories=categories,
    )


def _report_category(counts: _Counts, p_worse: float, tolerance: float, *, held: bool) -> CategoryGate:
    change = f"{counts.gains} gains and {counts.losses} losses on {counts.n} rows"
    if held:
        reason = f"{change}: worse by more than {tolerance:g} points (p = {p_worse:.2g})"
    elif counts.losses > counts.gains:
        reason = f"{change}: not shown to be worse by more than {tolerance:g} points (p = {p_worse:.2g})"
    else:
        reason = f"{change}: not worse"
    return CategoryGate(
        n=counts.n,
        gains=counts.gains,
        losses=counts.losses,
        accuracy_before=_share(counts.before, counts.n),
        accuracy_after=_share(counts.after, counts.n),
        interval=difference_interval(counts.gains, counts.losses, counts.n),
        local_share_before=_share(counts.local_before, counts.n),
        local_share_after=_share(counts.local_after, counts.n),
        p_value_worse=p_worse,
        held=held,
        reason=reason,
    )


def _count(before: Outcomes, after: Outcomes) -> _Counts:
    return _Counts(
        n=len(before.good),
        gains=sum(bool(after.good[row] and not good) for row, good in before.good.items()),
        losses=sum(bool(good and not after.good[row]) for row, good in before.good.items()),
        before=sum(map(bool, before.good.values())),
        after=sum(map(bool, after.good.values())),
        local_before=len(before.local),
        local_after=len(after.local),
        local_gains=len(after.local - before.local),
        local_losses=len(before.local - after.local),
    )


def _values(c: _Counts) -> tuple[int, ...]:
    return (
        *(c.n, c.gains, c.losses, c.before, c.after),
        *(c.local_before, c.local_after, c.local_gains, c.local_losses),
    )


def _check_paired(champion: Mapping[str, Outcomes], candidate: Mapping[str, Outcomes]) -> None:
    if champion.keys() != candidate.keys():
        odd = sorted(champion.keys() ^ candidate.keys())
        raise InvalidInputError(f"both releases need outcomes for the same categories; one lacks {odd}")
    for name, before in champion.items():
        after = candidate[name]
        if before.good.keys() != after.good.keys():
            raise InvalidInputError(
                f"category {name!r}: both releases must be graded on the same exam rows "
                f"({len(before.good.keys() ^ after.good.keys())} differ)"
            )
        if not (before.local | after.local) <= before.good.keys():
            raise InvalidInputError(f"category {name!r}: a row answered locally is not among the graded rows")


def _tolerances(given: float | Mapping[str, float], names: list[str]) -> dict[str, float]:
    if isinstance(given, Mapping):
        unknown = sorted(given.keys() - set(names))
        if unknown:
            raise InvalidInputError(f"tolerance for unknown categories {unknown}; known are {names}")
        tolerances = {name: given.get(name, 3.0) for name in names}
    else:
        tolerances = dict.fromkeys(names, given)
    for name, points in tolerances.items():
        if not 0.0 <= points < 100.0:
            raise InvalidInputError(f"category {name!r}: tolerance must lie in [0, 100) points, got {points}")
    return tolerances


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(part: int, whole: int) -> str:
    return f"{100.0 * _share(part, whole):.1f} %"
