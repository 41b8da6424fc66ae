"""What the demo counts as success: the table at its end and the three conditions of its exit code.

Pure values; knows nothing of processes or of the gateway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LEAST_GAIN = 0.20
LEAST_CATEGORIES = 2
DOUBT = 0.05


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """One category on the separate check rows; accuracies and shares are 0 to 1."""

    name: str
    before_rows: int
    before: float
    rows: int
    after: float
    local: int
    local_bad: int

    @property
    def local_share(self) -> float:
        """Return the share of check rows that was answered locally."""
        return self.local / self.rows if self.rows else 0.0

    @property
    def rose(self) -> bool:
        """Say whether the student gained the 20 points and serves some of the category."""
        return self.after - self.before >= LEAST_GAIN and self.local > 0


def binomial_tail(errors: int, trials: int, rate: float) -> float:
    """Return P(Bin(trials, rate) >= errors), exact by summation."""
    return sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(errors, trials + 1))


def breach(scores: Mapping[str, CategoryScore], alpha: float) -> list[str]:
    """Name what breaks the promise on the check rows: the pooled error rate, or a category by its exact test.

    A category breaks it when so many errors would be seen with probability under 5 % at a true rate of alpha (the
    same as: its one-sided 95 % Clopper-Pearson lower limit is above alpha).
    """
    broken = []
    local = sum(score.local for score in scores.values())
    bad = sum(score.local_bad for score in scores.values())
    if local and bad / local > alpha:
        broken.append(f"pooled: {bad} of {local} local answers are bad")
    for score in scores.values():
        if score.local_bad and binomial_tail(score.local_bad, score.local, alpha) < DOUBT:
            broken.append(f"{score.name}: {score.local_bad} of {score.local} local answers are bad")
    return broken


def verdict(scores: Mapping[str, CategoryScore], *, alpha: float, failed: int) -> list[str]:
    """Return the reasons why the demo did not succeed; an empty list is success."""
    reasons = breach(scores, alpha)
    risen = [score.name for score in scores.values() if score.rose]
    if len(risen) < LEAST_CATEGORIES:
        reasons.append(
            f"only {len(risen)} categories rose by {100 * LEAST_GAIN:.0f} points and are served locally; "
            f"{LEAST_CATEGORIES} are asked"
        )
    if failed:
        reasons.append(f"{failed} requests failed during the swap")
    return reasons
