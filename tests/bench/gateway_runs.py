"""What the measurements of the gateway share: how much is measured, and how repeated values are told."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: the full run, or a quick one that only shows that all works."""

    repetitions: int
    seconds: float
    """Of one turn of one contestant."""
    warm: int
    """Requests of each turn before its time begins."""
    turn: int
    """Requests of a turn where two targets alternate."""
    turns: int
    stream_turns: int
    local: int
    """Local answers of a repetition."""


FULL = Plan(repetitions=5, seconds=3.0, warm=50, turn=100, turns=20, stream_turns=4, local=60)
QUICK = Plan(repetitions=1, seconds=0.7, warm=20, turn=30, turns=4, stream_turns=2, local=10)


def describe(values: Sequence[float], unit: str = "") -> str:
    """Return median and spread of repeated values in words."""
    median = statistics.median(values)
    return f"median {median:.4g}{unit} ({min(values):.4g} to {max(values):.4g} in {len(values)} repetitions)"


def median_of(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the median of one column."""
    return statistics.median(row[name] for row in rows)
