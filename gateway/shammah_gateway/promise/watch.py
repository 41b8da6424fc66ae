"""The watch over the champion's promise: audits that break it, drift that makes it doubtful, what may be served then.

- A category whose audits reject "at most alpha is bad" is withdrawn: forwarded until another release serves. So is one
  that another gateway's audits withdrew.
- Drift of a category's scores, or of the mix of all queries, tightens: served is what the exam proved for half of alpha
  (a rung of the release's ladder), nothing where it proved nothing that strict.

The level is the release's delta over its certified categories: with probability 1 - delta no category of a release that
keeps its promise is ever withdrawn. It knows no transport; what it knows outlives a restart (`book`).
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Literal

from shammah_chassis.releases import Release

from shammah_gateway.promise.book import RELEASES, Kept, PromiseBook
from shammah_gateway.promise.drift import MIX_WINDOW, MixDrift, ScoreDrift
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
    """One release under watch: `since` it first served, and `began` in this process, in seconds of the epoch.

    `unknown` while what was kept of it can't be read: it may be withdrawn, so it is taken to be, and nothing is kept.
    """

    release: Release
    since: float
    began: float
    evidence: dict[str, Evidence] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    scores: dict[str, ScoreDrift] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    mix: MixDrift = field(default_factory=MixDrift)
    unknown: bool = False

    @property
    def level(self) -> float:
        """Error level of one category."""
        certified = sum(policy.threshold is not None for policy in self.release.categories.values())
        return self.release.delta / max(1, certified)

    def keep(self) -> Kept:
        """Return what outlives a restart."""
        full = self.mix.reference.total() >= MIX_WINDOW
        return Kept(
            since=self.since,
            evidence=self.evidence,
            withdrawn=self.withdrawn,
            elsewhere=self.elsewhere,
            drifted={name: drift.index for name, drift in self.scores.items() if drift.drifted},
            mix=dict(self.mix.reference) if full else {},
            mix_drift=self.mix.index if self.mix.drifted else 0.0,
        )


class PromiseWatch:
    """Watches every release that is asked for; what is known of one is read before it may serve."""

    def __init__(self, book: PromiseBook, *, now: Callable[[], float] = time.time) -> None:
        self._book = book
        self._now = now
        self._watched: OrderedDict[str, _Watched] = OrderedDict()

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
        watched = self._watch(release)
        known = watched.mix.reference.total(), watched.mix.drifted
        watched.mix.add(category)
        filled = known[0] < MIX_WINDOW <= watched.mix.reference.total()
        if filled or watched.mix.drifted != known[1]:
            self._keep(watched)

    def note_score(self, release: Release, category: str, quality: float, *, served: bool) -> None:
        """Count the quality of a response of the champion that came as far as the threshold."""
        watched = self._watch(release)
        policy = release.categories.get(category)
        if policy is None:
            return
        if category not in watched.scores:
            watched.scores[category] = ScoreDrift(policy.score_edges, policy.score_counts)
        drift = watched.scores[category]
        known = drift.drifted
        drift.add(quality)
        if drift.drifted != known:
            self._keep(watched)
        watched.served[category] = watched.served.get(category, 0) + served

    def note_audit(self, release: str, category: str, good: bool | None) -> None:
        """Count a graded audit of a local answer of `release`; of a release unknown, or ungraded, it is none."""
        watched = self._watched.get(release)
        if watched is None or good is None:
            return
        evidence = watched.evidence.setdefault(category, Evidence())
        evidence.add(bad=not good, alpha=watched.release.alpha)
        if evidence.is_breached(watched.level):
            watched.withdrawn.add(category)
        self._keep(watched)

    def note_elsewhere(self, release: Release, categories: Set[str]) -> None:
        """Withdraw what audits of other gateways withdrew of a release; what is not named stays as it is."""
        watched = self._watch(release)
        news = categories - watched.withdrawn - watched.elsewhere
        if news:
            watched.elsewhere.update(news)
            self._keep(watched)

    def describe(self, release: Release, category: str, *, audit_rate: float) -> CategoryWatch:
        """Return what is known of a category of the champion."""
        watched = self._watch(release)
        evidence = watched.evidence.get(category, Evidence())
        drift = watched.scores.get(category)
        needed = audits_to_notice(alpha=release.alpha, level=watched.level)
        audits_per_second = audit_rate * watched.served.get(category, 0) / max(1.0, self._now() - watched.began)
        return CategoryWatch(
            state=self._state(release, category),
            audits=evidence.audits,
            audits_bad=evidence.bad,
            audits_to_notice=needed,
            seconds_to_notice=needed / audits_per_second if audits_per_second > 0 else 0.0,
            score_drift=drift.index if drift else 0.0,
            evidence_seconds=max(0.0, self._now() - release.created_at),
        )

    def withdrawn(self, release: Release) -> frozenset[str]:
        """Return the categories of a release whose promise this gateway's audits broke, as far as is known."""
        return frozenset(self._watch(release).withdrawn)

    def alarms(self, release: Release) -> list[str]:
        """Return what people should know, in words."""
        watched = self._watch(release)
        texts = [
            f"the promise is broken in {name!r}: {watched.evidence[name].bad} of {watched.evidence[name].audits} "
            "audits were bad; it is forwarded until another release serves"
            for name in sorted(watched.withdrawn)
        ]
        texts += [
            f"the promise is broken in {name!r}: another gateway's audits found it; it is forwarded until another "
            "release serves"
            for name in sorted(watched.elsewhere - watched.withdrawn)
        ]
        if watched.unknown:
            texts.append("what was known of the promise can't be read: everything is forwarded until it can")
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
        watched = self._watch(release)
        drift = watched.scores.get(category)
        return watched.mix.drifted or (drift is not None and drift.drifted)

    def _is_withdrawn(self, release: Release, category: str) -> bool:
        watched = self._watch(release)
        return watched.unknown or category in watched.withdrawn or category in watched.elsewhere

    def _keep(self, watched: _Watched) -> None:
        if not watched.unknown:
            self._book.write(watched.release.id, watched.keep())

    def _watch(self, release: Release) -> _Watched:
        """Return what is known of a release, also on disk: whoever asks, asks before it may serve."""
        self._book.retry()
        watched = self._watched.get(release.id)
        if watched is None:
            kept = self._book.read(release.id)
            watched = _begin(release, kept or Kept(), now=self._now())
            if kept is None:
                watched.unknown = True
                return watched  # not remembered: the next query looks again
            self._watched[release.id] = watched
            while len(self._watched) > RELEASES:
                self._watched.popitem(last=False)
        self._watched.move_to_end(release.id)
        return watched


def _begin(release: Release, kept: Kept, *, now: float) -> _Watched:
    """Go on watching a release where it was left."""
    scores = {
        name: ScoreDrift(policy.score_edges, policy.score_counts, drifted=True, index=kept.drifted[name])
        for name, policy in release.categories.items()
        if name in kept.drifted
    }
    mix = MixDrift(Counter(kept.mix), drifted=kept.mix_drift > 0, index=kept.mix_drift)
    return _Watched(release, kept.since or now, now, kept.evidence, kept.withdrawn, kept.elsewhere, scores, mix=mix)
