"""What an analysis says about each category, and how far the goal is. Plain values from the result of analyze_model.

The certified local share of a category is the share of its tested dev rows that the cascade answered locally; only a
category whose threshold the exam has certified is ever answered locally. The measure of a session is the plain mean
over its categories: each counts the same, whatever its traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shammah_chassis.learning_curve import Point

from shammah_gateway.teach.settings import Goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One category of an analysis; shares and accuracies 0 to 1.

    `rows` are the examples that it was taught or that wait, `share` its part of the traffic, `points` its learning
    curve: at least what was tested now.
    """

    category: str
    tested: int = 0
    accuracy: float = 0.0
    local_share: float = 0.0
    local_bad: int = 0
    certified: bool = False
    rows_missing: int = 0
    rows: int = 0
    share: float = 0.0
    points: tuple[Point, ...] = ()


def read_findings(analysis: Mapping[str, Any]) -> dict[str, Finding]:
    """Return the findings of an analysis by category."""
    return {row["category"]: _read_finding(row) for row in analysis.get("categories", [])}


def _read_finding(row: Mapping[str, Any]) -> Finding:
    tested = int(row["tested"])
    local = int(row["local_good"]) + int(row["local_bad"])
    certified = bool(row["certified"])
    taught, accuracy = int(row.get("trained_examples", 0)), float(row["accuracy"])
    points = [Point(int(one["rows"]), one["accuracy"] * one["graded"], one["graded"]) for one in row.get("curve", [])]
    return Finding(
        category=row["category"],
        tested=tested,
        accuracy=accuracy,
        local_share=local / tested if certified and tested else 0.0,
        local_bad=int(row["local_bad"]),
        certified=certified,
        rows_missing=int(row["rows_missing"]),
        rows=taught + int(row.get("queued_examples", 0)),
        share=float(row.get("share", 0.0)),
        points=tuple(points) or (Point(taught, accuracy * tested, tested),),
    )


def value_of(finding: Finding, goal: Goal) -> float:
    """Return what the goal measures of one category."""
    return finding.local_share if goal.measure == "local_share" else finding.accuracy


def measure(findings: Mapping[str, Finding], categories: Sequence[str], goal: Goal) -> float:
    """Return the mean of the goal's measure over the categories (empty: all found); 0 for one that was not found."""
    names = list(categories) or sorted(findings)
    found = [value_of(findings[name], goal) if name in findings else 0.0 for name in names]
    return sum(found) / len(found) if found else 0.0


def list_exam_needs(findings: Mapping[str, Finding], categories: Sequence[str] = ()) -> dict[str, int]:
    """Return the exam rows that are missing by category, where more rows can certify."""
    return {
        name: found.rows_missing
        for name, found in sorted(findings.items())
        if not found.certified and found.rows_missing > 0 and (not categories or name in categories)
    }


def describe_exam_needs(needs: Mapping[str, int]) -> str:
    """Say what to do about missing exam rows; "" when nothing is missing."""
    if not needs:
        return ""
    rows = ", ".join(f"{name} {count}" for name, count in needs.items())
    return f"certification needs {sum(needs.values())} more exam rows ({rows}): shammah learn FILE --exam"
