"""Which examples may train: by origin, licence, and whose text it is. Enforced at ingestion and at each round.

It knows provenance, no parts and no models. The policy is written into every manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import ORIGINS, Example
from shammah_chassis.manifest import ROLES

GOOD_WEIGHT, BAD_WEIGHT, CORRECTION_WEIGHT = 1.0, 3.0, 10.0
# No door lets more in; a log may have it from elsewhere, and one row of 1e39 would make each loss infinite.
MAX_WEIGHT = CORRECTION_WEIGHT
# The gateway's feedback desk has weighed (and capped) what comes from there.
WEIGHED_SOURCE = "feedback"


@dataclass(frozen=True, slots=True)
class TrainingPolicy:
    """Who may train what.

    `origins[role]`: origins that may train a role (missing role: all known ones). `refused_licences`: texts that a
    licence may not contain, in any case. `user_share`: the most of a round's whole weight that one user may have.
    """

    origins: dict[str, tuple[str, ...]] | None = None
    refused_licences: tuple[str, ...] = ()
    user_share: float = 0.2

    def __post_init__(self) -> None:
        for role, allowed in (self.origins or {}).items():
            unknown = sorted(set(allowed) - set(ORIGINS))
            if role not in ROLES or unknown:
                raise InvalidInputError(
                    f"policy for role {role!r} with origins {list(allowed)}; allowed roles: {', '.join(ROLES)}; "
                    f"allowed origins: {', '.join(ORIGINS)}"
                )
        if not 0.0 < self.user_share <= 1.0:
            raise InvalidInputError(f"user_share is {self.user_share}; allowed: above 0, at most 1")

    def refuse(self, example: Example) -> str:
        """Return why no role may learn from `example`, or "" when at least one may."""
        if not any(self.allows(example, role) for role in ROLES):
            return f"the policy lets origin {example.provenance.origin!r} train no role"
        licence = example.provenance.licence.lower()
        for text in self.refused_licences:
            if text.lower() in licence:
                return f"the policy refuses licence {example.provenance.licence!r}"
        if _is_own_ungraded_text(example):
            return "the student's own ungraded text trains nothing"
        return ""

    def allows(self, example: Example, role: str) -> bool:
        """Say whether the origin of `example` may train `role`."""
        allowed = (self.origins or {}).get(role)
        return allowed is None or example.provenance.origin in allowed

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as JSON for a manifest."""
        return asdict(self)


def cap_user_weights(examples: Sequence[Example], policy: TrainingPolicy) -> list[float]:
    """Return one weight per example; a user's rows are scaled down together to `user_share` of the whole.

    Rows without a user are never scaled. With one user and nothing else there is nothing to balance or cut. No row
    weighs more than `MAX_WEIGHT`, also one that was stored before this was seen to.
    """
    weights = [min(example.weight, MAX_WEIGHT) for example in examples]
    totals: dict[str, float] = {}
    for example, weight in zip(examples, weights, strict=True):
        totals[example.user] = totals.get(example.user, 0.0) + weight
    whole = sum(totals.values())
    scale: dict[str, float] = {}
    for user, own in totals.items():
        others = whole - own
        # own * s = share * (own * s + others)
        limit = policy.user_share * others / (1 - policy.user_share) if policy.user_share < 1 else own
        scale[user] = min(1.0, limit / own) if user and own > 0 and others > 0 else 1.0
    return [weight * scale[example.user] for example, weight in zip(examples, weights, strict=True)]


def summarise_provenance(examples: Sequence[Example], policy: TrainingPolicy) -> dict[str, Any]:
    """Return counts by origin, teacher and licence, with the policy that let them in: for the manifest."""
    counts: dict[str, dict[str, int]] = {"origins": {}, "teachers": {}, "licences": {}}
    for example in examples:
        source = example.provenance
        for name, value in (
            ("origins", source.origin),
            ("teachers", f"{source.teacher} {source.teacher_model}".strip() or "unknown"),
            ("licences", source.licence or "unknown"),
        ):
            counts[name][value] = counts[name].get(value, 0) + 1
    return {"rows": len(examples), **counts, "policy": policy.as_dict()}


def weigh(example: Example) -> Example:
    """Give feedback its default weight where the sender left it at 1: 10 for a correction, 3 for a bad rating.

    A larger weight than `MAX_WEIGHT` becomes that.
    """
    if example.weight > MAX_WEIGHT:
        return replace(example, weight=MAX_WEIGHT)
    if example.weight != GOOD_WEIGHT or example.provenance.source == WEIGHED_SOURCE:
        return example
    if example.provenance.origin == "user_correction":
        return replace(example, weight=CORRECTION_WEIGHT)
    if example.provenance.origin == "feedback" and example.rating == -1:
        return replace(example, weight=BAD_WEIGHT)
    return example


def _is_own_ungraded_text(example: Example) -> bool:
    if example.provenance.teacher in ("student", "local"):
        return example.rating != 1
    own = bool(example.student_attempt) and example.response == example.student_attempt
    return own and example.rating != 1 and not example.provenance.teacher and not example.grader
