"""Counters of what is served, and of the graded samples that watch the promise.

Plain numbers; Prometheus and status read them. It knows no transport.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from shammah_gateway.values import Answer


@dataclass(slots=True)
class Sampled:
    """Graded samples of one category; those that could not be graded are no evidence."""

    graded: int = 0
    bad: int = 0
    ungraded: int = 0

    def add(self, good: bool | None) -> None:
        """Count one grade."""
        if good is None:
            self.ungraded += 1
            return
        self.graded += 1
        self.bad += not good


@dataclass(slots=True)
class Monitor:
    """What happened since the gateway started."""

    queries: int = 0
    local: int = 0
    forwarded: int = 0
    degraded: int = 0
    failed: int = 0
    dropped: int = 0
    lost_examples: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    audits: dict[str, Sampled] = field(default_factory=dict)
    explorations: dict[str, Sampled] = field(default_factory=dict)

    def add_answer(self, answer: Answer, *, traffic: bool = True) -> None:
        """Count an answered query; one that is no `traffic` (a test) says nothing of the shares of categories."""
        self.queries += 1
        self.local += answer.route == "local"
        self.forwarded += answer.route == "teacher"
        self.degraded += answer.route == "degraded"
        self.reasons[answer.reason] += 1
        if traffic:
            self.categories[answer.category] += 1

    def add_category(self, category: str) -> None:
        """Count the category of traffic that was answered before anybody asked for it."""
        self.categories[category] += 1

    def add_failure(self) -> None:
        """Count a query that got an error."""
        self.queries += 1
        self.failed += 1

    def add_audit(self, category: str, good: bool | None) -> None:
        """Count a graded audit: a local answer against the teacher's."""
        self.audits.setdefault(category, Sampled()).add(good)

    def add_exploration(self, category: str, good: bool | None) -> None:
        """Count a graded exploration: what the student would have said to a forwarded query."""
        self.explorations.setdefault(category, Sampled()).add(good)

    @property
    def audited(self) -> tuple[int, int]:
        """All graded audits, and how many of them were bad."""
        return sum(entry.graded for entry in self.audits.values()), sum(entry.bad for entry in self.audits.values())
