"""A running test of "at most a share alpha is bad" on audits, valid whenever one looks.

A test martingale (Shafer and Vovk; Waudby-Smith and Ramdas 2024): money is bet on "bad" at fair odds for alpha. While
the promise holds the capital grows beyond 1 / level with probability at most level, over the whole life of a release
and however often it is looked at (Ville's inequality). It knows no categories and no releases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Stakes as shares of the largest allowed one (1 / alpha): best for a risk of about 1.5, 2, 3 and 5 times alpha.
_SHARES = (0.025, 0.05, 0.1, 0.2)
BREACH_FACTOR = 2.0
"""How much worse than promised a category is in the question "how long until it would be noticed"."""


@dataclass(slots=True)
class Evidence:
    """Audits of one category: counts, and the logarithm of the capital of each stake."""

    audits: int = 0
    bad: int = 0
    logs: list[float] = field(default_factory=lambda: [0.0] * len(_SHARES))

    def add(self, *, bad: bool, alpha: float) -> None:
        """Count one graded audit."""
        self.audits += 1
        self.bad += bad
        for index, share in enumerate(_SHARES):
            self.logs[index] += math.log1p(share / alpha * (float(bad) - alpha))

    @property
    def log_capital(self) -> float:
        """The logarithm of the mean capital of all stakes."""
        highest = max(self.logs)
        return highest + math.log(sum(math.exp(value - highest) for value in self.logs) / len(self.logs))

    def is_breached(self, level: float) -> bool:
        """Say whether "at most alpha" is rejected at `level`."""
        return self.log_capital >= math.log(1.0 / level)


def audits_to_notice(*, alpha: float, level: float, factor: float = BREACH_FACTOR) -> int:
    """Return about how many audits it takes until a risk of `factor` * alpha is noticed.

    What the capital has to reach, over the mean growth of the best stake's logarithm for each audit.
    """
    risk = min(1.0, factor * alpha)
    growth = max(_mean_growth(share / alpha, alpha=alpha, risk=risk) for share in _SHARES)
    return math.ceil((math.log(1.0 / level) + math.log(len(_SHARES))) / growth)


def _mean_growth(stake: float, *, alpha: float, risk: float) -> float:
    return risk * math.log1p(stake * (1.0 - alpha)) + (1.0 - risk) * math.log1p(-stake * alpha)


def restore(audits: int, bad: int, logs: Sequence[float]) -> Evidence:
    """Return evidence as it was kept; other stakes than ours mean that it starts anew from its counts alone.

    Raises:
        ValueError: the numbers can't be of one and the same evidence.
    """
    if len(logs) != len(_SHARES) or not all(map(math.isfinite, logs)) or not 0 <= bad <= audits:
        raise ValueError("no evidence of audits")
    return Evidence(audits, bad, list(logs))
