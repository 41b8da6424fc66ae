"""The local half of the cascade: may this release answer this query itself, and what does it say.

Route, generate, validate, compare with the threshold of the category. It knows neither the teacher nor examples, and
never raises for a role's failure: that becomes the reason to forward.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shammah_chassis.errors import DeadlineError, InvalidInputError, OverloadedError, ShammahError
from shammah_chassis.releases import CategoryPolicy, Release

from shammah_gateway.certificate import is_uncertified
from shammah_gateway.ports import Roles
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.values import Attempt, Judged, Query, Routed, Versions

# For a category that the release does not know there is no measured length of a good response.
DEFAULT_MAX_TOKENS = 64
# No release was even tried.
NOBODY = Versions()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the student did with a query: `serve` says whether its attempt is the answer, `reason` why or why not.

    `skipped` means that no role was asked, not even the router.
    """

    serve: bool = False
    reason: str = "unavailable"
    category: str = ""
    confidence: float = 0.0
    versions: Versions = NOBODY
    attempt: Attempt | None = None
    judged: Judged | None = None
    statistics: Mapping[str, float] | None = None
    skipped: bool = False


class Student:
    """Tries queries on a release through the three roles."""

    def __init__(self, roles: Roles, *, role_timeout_seconds: float, watch: PromiseWatch | None = None) -> None:
        self._roles = roles
        self._watch = watch
        self._timeout = role_timeout_seconds

    async def try_query(self, query: Query, release: Release, *, run_anyway: bool = False) -> Trial:
        """Say whether the release may answer, and with what.

        With `run_anyway` the student also responds where the query will be forwarded; the reason stays the first one.
        """
        trial = Trial(versions=Versions(release=release.id))
        if not run_anyway and is_uncertified(query.text, query.temperature):
            # Whatever the router said, the teacher would answer: the user need not wait for it.
            return replace(trial, reason="uncertified", skipped=True)
        try:
            routed = await self._roles.route(release.id, query.text, timeout=self._patience(query))
        except ShammahError as error:
            trial = replace(trial, reason=_reason_of(error))
            # The router is no part of the attempt itself, so one that was asked for can still be made.
            return await self._respond(query, release, trial) if run_anyway else trial
        trial = replace(
            trial,
            category=routed.category,
            confidence=routed.local_probability,
            versions=replace(trial.versions, router=routed.version),
        )
        forward = self._reason_to_forward(query, routed, release)
        trial = replace(trial, reason=forward)
        if forward and not run_anyway:
            return trial
        return await self._respond(query, release, trial)

    async def find_category(self, query: Query, release: Release) -> str:
        """Return the category that the release's router sees; "" when it sees none or can't be asked."""
        try:
            return (await self._roles.route(release.id, query.text, timeout=self._patience(query))).category
        except ShammahError as error:
            _log.info("no category: %s", error.message)
            return ""

    async def _respond(self, query: Query, release: Release, trial: Trial) -> Trial:
        """Generate and validate; `trial.reason` "" means that nothing speaks against serving so far."""
        policy = release.categories.get(trial.category)
        try:
            generated = await self._roles.generate(
                release.id,
                query.messages,
                max_tokens=token_limit(query.max_tokens, policy),
                temperature=query.temperature,
                timeout=self._patience(query),
            )
            attempt = Attempt(generated.text, 0.0, generated.finish)
            versions = replace(trial.versions, generator=generated.version)
            trial = replace(trial, attempt=attempt, versions=versions, statistics=generated.statistics)
            judged = await self._roles.validate(
                release.id,
                query.text,
                generated.text,
                category=trial.category,
                statistics=generated.statistics,
                timeout=self._patience(query),
            )
        except ShammahError as error:
            return replace(trial, reason=trial.reason or _reason_of(error))
        trial = replace(
            trial,
            attempt=replace(attempt, quality=judged.quality),
            judged=judged,
            confidence=judged.quality,
            versions=replace(versions, validator=judged.version),
        )
        if trial.reason:
            return trial
        return _decide(trial, self._threshold(release, trial.category, query.alpha), judged)

    def _threshold(self, release: Release, category: str, alpha: float) -> float | None:
        if self._watch is None:
            return release.threshold_of(category, alpha)
        return self._watch.threshold(release, category, alpha)

    def _reason_to_forward(self, query: Query, routed: Routed, release: Release) -> str:
        """Return why the query must be forwarded before the student is asked; "" when nothing speaks against it."""
        if routed.truncated or is_uncertified(query.text, query.temperature):
            return "uncertified"
        if not routed.category:
            return "unknown_category"
        if self._threshold(release, routed.category, query.alpha) is None:
            return self._watch.reason(release, routed.category, query.alpha) if self._watch else "uncertified"
        if routed.local_probability < release.prefilter:
            return "router"
        return ""

    def _patience(self, query: Query) -> float:
        return query.role_timeout_seconds or self._timeout


def token_limit(wanted: int, policy: CategoryPolicy | None) -> int:
    """Return how many tokens the student may write: the caller's limit, never above that of the category."""
    limit = policy.max_new_tokens if policy else DEFAULT_MAX_TOKENS
    return min(wanted, limit) if wanted else limit


def _decide(trial: Trial, threshold: float | None, judged: Judged) -> Trial:
    """Compare the quality with the threshold of the category; a cut response is outside the certificate."""
    cut = trial.attempt is None or trial.attempt.finish == "length" or judged.truncated
    if cut or threshold is None:
        return replace(trial, reason="uncertified")
    if judged.quality >= threshold:
        return replace(trial, serve=True, reason="quality")
    return replace(trial, reason="low_quality")


def _reason_of(error: ShammahError) -> str:
    """Return the reason that a role's failure is to the caller."""
    if isinstance(error, DeadlineError):
        return "late"
    if isinstance(error, OverloadedError):
        return "overloaded"
    if isinstance(error, InvalidInputError):
        # The role can't take this input at all (a prompt longer than its context, say).
        return "uncertified"
    _log.warning("a role failed: %s: %s", error.code, error.message)
    return "unavailable"
