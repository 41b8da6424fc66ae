"""Figures of the judges' studies: accuracy, AUROC and APGR with intervals by bootstrap over queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_DRAWS = 2000
_LEAST_GAP = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(groups: Sequence[str], measure: Callable[[npt.NDArray[np.int64]], float]) -> Interval:
    """Return `measure(rows)` with the percentile interval over 2,000 draws of whole groups."""
    names, place = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(place == number) for number in range(len(names))]
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(_DRAWS):
        chosen = generator.integers(len(members), size=len(members))
        value = measure(np.concatenate([members[number] for number in chosen]))
        if np.isfinite(value):
            draws.append(value)
    low, high = np.quantile(draws or [float("nan")], [0.025, 0.975])
    return Interval(measure(np.arange(len(groups))), float(low), float(high))


def area_of_gain(score: Array, strong: Array, weak: Array) -> float:
    """Return the mean over shares x of what sending the top x by `score` to the strong model adds to the weak one's."""
    gain = (strong - weak)[np.argsort(-score, kind="stable")]
    return float(np.trapezoid(np.concatenate([[0.0], np.cumsum(gain)]), dx=1.0) / len(gain) ** 2)


def measure_apgr(score: Array, strong: Array, weak: Array) -> float:
    """Return the average performance gap recovered (Ong et al. 2024, RouteLLM); 0.5 for a random order."""
    gap = float((strong - weak).mean())
    return area_of_gain(score, strong, weak) / gap if gap else float("nan")


def mean_within(
    score: Array, strong: Array, weak: Array, benchmarks: npt.NDArray[np.str_], chosen: Sequence[str]
) -> float:
    """Return the mean of the APGR inside each chosen benchmark."""
    parts = [benchmarks == name for name in chosen]
    found = [measure_apgr(score[own], strong[own], weak[own]) for own in parts if own.any()]
    return float(np.mean(found)) if found else float("nan")


def weighted_within(
    score: Array, strong: Array, weak: Array, benchmarks: npt.NDArray[np.str_], chosen: Sequence[str]
) -> float:
    """Return all gain recovered inside the benchmarks, over all that could be: a mean weighted by rows and gap."""
    parts = [benchmarks == name for name in chosen]
    area = sum(own.sum() * area_of_gain(score[own], strong[own], weak[own]) for own in parts if own.any())
    return float(area / sum(own.sum() * (strong - weak)[own].mean() for own in parts if own.any()))


def benchmarks_with_gap(strong: Array, weak: Array, benchmarks: npt.NDArray[np.str_], *, without: str) -> list[str]:
    """Return the benchmarks where the strong model is ahead by 5 points or more: elsewhere APGR has no meaning."""
    names = sorted(set(benchmarks.tolist()) - {without})
    return [name for name in names if float((strong - weak)[benchmarks == name].mean()) >= _LEAST_GAP]
