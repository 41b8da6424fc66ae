"""The watch over the champion's promise: audits that break it, drift that makes it doubtful, what may be served then.

- A category whose audits reject "at most alpha is bad" is withdrawn: forwarded until another release serves.
- Drift of a category's scores, or of the mix of all queries, tightens: served is what the exam proved for half of alpha
  (a rung of the release's ladder), nothing where it proved nothing that strict.

The level is the release's delta over its certified categories: with probability 1 - delta no category of a release that
keeps its promise is ever withdrawn. It knows no transport; what it knows outlives a restart (`book`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from shammah_chassis.releases import Release

from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.drift import MixDrift, ScoreDrift
from shammah_gateway.promise.evidence import Evidence, audits_to_notice

TIGHTER = 0.5
State = Literal["certified", "uncertified", "tightened", "withdrawn"]


@dataclass(frozen=True, slots=True)
class CategoryWatch:
    """What is known of the promise in one category; `seconds_to_notice` is 0 where nobody could say."""

    state: State
    audits: int
    audits_bad: int
    audits_to_notice: int
    seconds_to_notice: float
    score_drift: float
    evidence_seconds: float


@dataclass(slots=True)
class _Watched:
    """One release under watch."""

    release: Release
    since: float
    evidence: dict[str, Evidence] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    scores: dict[str, ScoreDrift] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    mix: MixDrift = field(default_factory=MixDrift)

    @property
    def level(self) -> float:
        """Error level of one category."""
        certified = sum(policy.threshold is not None for policy in self.release.categories.values())
        return self.release.delta / max(1, certified)


class PromiseWatch:
    """Watches one release at a time; another one begins a new watch."""

    def __init__(self, book: PromiseBook, *, now: Callable[[], float] = time.time) -> None:
        self._book = book
        self._now = now
        self._watched: _Watched | None = None

    def threshold(self, release: Release, category: str, alpha: float = 0.0) -> float | None:
        """Return the least quality that may be served now (see `Release.threshold_of`); None: forward."""
        if self._is_withdrawn(release, category):
            return None
        return release.threshold_of(category, self._alpha(release, category, alpha))

    def reason(self, release: Release, category: str, alpha: float = 0.0) -> str:
        """Return why nothing may be served in a category: "withdrawn", "drift", "uncertified"; "" where it may."""
        if self.threshold(release, category, alpha) is not None:
            return ""
        if self._is_withdrawn(release, category):
            return "withdrawn"
        return "drift" if release.threshold_of(category, alpha) is not None else "uncertified"

    def note_query(self, release: Release, category: str) -> None:
        """Count a query that the champion's router has seen; `release` is the champion."""
        self._watch(release).mix.add(category)

    def note_score(self, release: Release, category: str, quality: float, *, served: bool) -> None:
        """Count the quality of a response of the champion that came as far as the threshold."""
        watched = self._watch(release)
        policy = release.categories.get(category)
        if policy is None:
            return
        if category not in watched.scores:
            watched.scores[category] = ScoreDrift(policy.score_edges, policy.score_counts)
        watched.scores[category].add(quality)
        watched.served[category] = watched.served.get(category, 0) + served

    def note_audit(self, release: str, category: str, good: bool | None) -> None:
        """Count a graded audit of a local answer of `release`; one of another release, or ungraded, is no evidence."""
        watched = self._watched
        if watched is None or watched.release.id != release or good is None:
            return
        evidence = watched.evidence.setdefault(category, Evidence())
        evidence.add(bad=not good, alpha=watched.release.alpha)
        if evidence.is_breached(watched.level):
            watched.withdrawn.add(category)
        self._book.write(watched.release.id, watched.since, watched.evidence, watched.withdrawn)

    def describe(self, release: Release, category: str, *, audit_rate: float) -> CategoryWatch:
        """Return what is known of a category of the champion."""
        watched = self._watch(release)
        evidence = watched.evidence.get(category, Evidence())
        drift = watched.scores.get(category)
        needed = audits_to_notice(alpha=release.alpha, level=watched.level)
        audits_per_second = audit_rate * watched.served.get(category, 0) / max(1.0, self._now() - watched.since)
        return CategoryWatch(
            state=self._state(release, category),
            audits=evidence.audits,
            audits_bad=evidence.bad,
            audits_to_notice=needed,
            seconds_to_notice=needed / audits_per_second if audits_per_second > 0 else 0.0,
            score_drift=drift.index if drift else 0.0,
            evidence_seconds=max(0.0, self._now() - release.created_at),
        )

    def alarms(self, release: Release) -> list[str]:
        """Return what people should know, in words."""
        watched = self._watch(release)
        texts = [
            f"the promise is broken in {name!r}: {watched.evidence[name].bad} of {watched.evidence[name].audits} "
            "audits were bad; it is forwarded until another release serves"
            for name in sorted(watched.withdrawn)
        ]
        drifted = sorted(name for name, drift in watched.scores.items() if drift.drifted)
        texts += [
            f"scores in {name!r} are unlike those of the exam (stability index {watched.scores[name].index:.2f}): only "
            "what is certified for half of alpha is served"
            for name in drifted
        ]
        if watched.mix.drifted:
            texts.append(
                f"the mix of queries has changed (stability index {watched.mix.index:.2f}): only what is certified for "
                "half of alpha is served"
            )
        return texts

    def _state(self, release: Release, category: str) -> State:
        if release.threshold_of(category) is None:
            return "uncertified"
        if self._is_withdrawn(release, category):
            return "withdrawn"
        return "tightened" if self._is_doubtful(release, category) else "certified"

    def _alpha(self, release: Release, category: str, asked: float) -> float:
        wanted = asked or release.alpha
        return min(wanted, TIGHTER * release.alpha) if self._is_doubtful(release, category) else asked

    def _is_doubtful(self, release: Release, category: str) -> bool:
        watched = self._watched
        if watched is None or watched.release.id != release.id:
            return False
        drift = watched.scores.get(category)
        return watched.mix.drifted or (drift is not None and drift.drifted)

    def _is_withdrawn(self, release: Release, category: str) -> bool:
        watched = self._watched
        return watched is not None and watched.release.id == release.id and category in watched.withdrawn

    def _watch(self, release: Release) -> _Watched:
        if self._watched is None or self._watched.release.id != release.id:
            kept = self._book.read(release.id)
            self._watched = _Watched(release, kept.since or self._now(), kept.evidence, kept.withdrawn)
        return self._watched
