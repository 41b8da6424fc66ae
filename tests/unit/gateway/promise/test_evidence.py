"""The running test of audits: its error rate is what it says, and it notices a breach about when it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from shammah_gateway.promise.evidence import Evidence, audits_to_notice, restore

ALPHA = 0.05


def first_breach(draws: np.ndarray, level: float) -> int | None:
    evidence = Evidence()
    for number, bad in enumerate(draws, start=1):
        evidence.add(bad=bool(bad), alpha=ALPHA)
        if evidence.is_breached(level):
            return number
    return None


def test_a_release_at_the_promised_share_is_rarely_accused_however_often_one_looks() -> None:
    rng = np.random.default_rng(1)
    level = 0.05
    accused = sum(first_breach(rng.random(1500) < ALPHA, level) is not None for _ in range(400))
    # P(Bin(400, .05) > 31) is under 1 %: the bound holds for any number of looks.
    assert accused <= 31


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_a_breach_is_noticed_after_about_as_many_audits_as_status_says(factor: float) -> None:
    rng = np.random.default_rng(2)
    level = 0.01
    found = [first_breach(rng.random(3000) < factor * ALPHA, level) for _ in range(200)]
    assert all(found)
    said = audits_to_notice(alpha=ALPHA, level=level, factor=factor)
    assert 0.6 < said / float(np.median([number for number in found if number])) < 1.8


def test_the_capital_is_the_mean_of_all_stakes() -> None:
    evidence = Evidence()
    evidence.add(bad=True, alpha=ALPHA)
    assert math.exp(evidence.log_capital) == pytest.approx(
        np.mean([1 + share / ALPHA * (1 - ALPHA) for share in (0.025, 0.05, 0.1, 0.2)])
    )


@pytest.mark.parametrize(("audits", "bad", "logs"), [(1, 2, [0.0] * 4), (2, 1, [0.0]), (2, 1, [math.nan] * 4)])
def test_what_can_be_no_evidence_is_not_restored(audits: int, bad: int, logs: list[float]) -> None:
    with pytest.raises(ValueError, match="no evidence"):
        restore(audits, bad, logs)
