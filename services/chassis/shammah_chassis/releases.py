"""A release: one version of each role, thresholds and exam report, promoted together.

Plain values and their JSON. How releases are stored is `artifacts`; who promotes them is the gateway.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shammah_chassis.errors import ArtifactError
from shammah_chassis.ulid import is_ulid

RELEASE_FORMAT = 1
Verdict = Literal["base", "promote", "held", "undecided"]


@dataclass(frozen=True, slots=True)
class Rung:
    """A stricter promise of a category: served at `threshold` or above, at most `alpha` of the answers are bad."""

    alpha: float
    threshold: float


@dataclass(frozen=True, slots=True)
class CategoryPolicy:
    """What a release may do in one category.

    `threshold` is the least validator quality that is served locally; None means always forward.
    `rows`, `accepted` and `errors` are the exam evidence; `rows_missing` is how many more accepted exam rows would be
    needed. `accuracy` is the student's on all exam rows of the category. `max_new_tokens` bounds a response. `ladder`
    has the stricter promises that the exam proves too, by falling alpha (the threshold never falls); none where
    `threshold` is None. `score_edges` are the inner deciles of the quality of the exam rows that came as far as a
    threshold, `score_counts` how many rows lie between them (one more than edges): what drift is measured against.
    `trained_rows` is how many train rows of the category its generator and ancestors had, `exam_rows` how many rows
    `accuracy` is of: points of a learning curve.
    """

    threshold: float | None
    rows: int = 0
    accepted: int = 0
    errors: int = 0
    rows_missing: int = 0
    accuracy: float = 0.0
    local_share: float = 0.0
    max_new_tokens: int = 64
    reason: str = ""
    ladder: tuple[Rung, ...] = ()
    score_edges: tuple[float, ...] = ()
    score_counts: tuple[int, ...] = ()
    trained_rows: int = 0
    exam_rows: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """Three versions and the promise they carry.

    `prefilter` is the least `local_probability` of the router that goes on to the generator.
    `alpha` and `delta` are those of the certificate. `position` is the last log sequence learned from.
    `precision` is the generator precision that the certificate is for. `fence` is the trainer's fencing token.
    """

    id: str
    parent: str
    created_at: float
    router: str
    generator: str
    validator: str
    verdict: Verdict
    categories: dict[str, CategoryPolicy] = field(default_factory=dict)
    prefilter: float = 0.0
    alpha: float = 0.05
    delta: float = 0.05
    position: int = 0
    precision: str = "int8"
    fence: int = 0
    ancestry: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    format_version: int = RELEASE_FORMAT

    def version_of(self, role: str) -> str:
        """Return the version id of a role ("router", "generator" or "validator")."""
        return {"router": self.router, "generator": self.generator, "validator": self.validator}[role]

    def threshold_of(self, category: str, alpha: float = 0.0) -> float | None:
        """Return the least quality that is served in a category so that at most `alpha` of the answers are bad.

        `alpha` 0 means that of the release. None: always forward, as nothing that strict is certified (a release made
        without ladders certifies its own alpha only). Each alpha holds on its own: P(a category breaks it) <= delta.
        """
        policy = self.categories.get(category)
        if policy is None:
            return None
        if alpha == 0.0 or alpha >= self.alpha:
            return policy.threshold
        return next((rung.threshold for rung in policy.ladder if rung.alpha <= alpha), None)

    def to_json(self) -> str:
        """Return the text of `releases/<id>.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def parse_release(text: str) -> Release:
    """Read a release.

    Raises:
        ArtifactError: not JSON, a missing or wrong field, or a newer format.
    """
    try:
        raw = json.loads(text)
        if int(raw["format_version"]) > RELEASE_FORMAT:
            raise ArtifactError(
                f"release has format {raw['format_version']}; this program reads up to {RELEASE_FORMAT}"
            )
        if not is_ulid(raw["id"]):
            raise ValueError(f"id {raw['id']!r} is not a ULID")
        categories = {name: _parse_policy(entry) for name, entry in raw["categories"].items()}
        return Release(
            **{
                **raw,
                "categories": categories,
                "ancestry": tuple(raw.get("ancestry", ())),
                "reasons": tuple(raw.get("reasons", ())),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"release can't be read: {error}") from error


def _parse_policy(entry: dict[str, Any]) -> CategoryPolicy:
    ladder = tuple(Rung(**rung) for rung in entry.get("ladder", ()))
    changed = {
        "ladder": tuple(sorted(ladder, key=lambda rung: -rung.alpha)),
        "score_edges": tuple(entry.get("score_edges", ())),
        "score_counts": tuple(entry.get("score_counts", ())),
    }
    return CategoryPolicy(**{**entry, **changed})


@dataclass(frozen=True, slots=True)
class Champion:
    """Value of KV `champion`: what serves, and what served before (newest first, distinct, at most five)."""

    release: str
    previous: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    promoted_at: float = 0.0
    reason: str = ""

    def to_json(self) -> str:
        """Return the text of the KV value."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Value of KV `wanted`: the releases that every pod must hold, and which of them is on trial."""

    releases: tuple[str, ...]
    candidate: str = ""

    def to_json(self) -> str:
        """Return the text of the KV value."""
        return json.dumps(asdict(self), sort_keys=True)


def parse_champion(text: str) -> Champion:
    """Read KV `champion`; raises ArtifactError when malformed."""
    try:
        raw = json.loads(text)
        return Champion(
            release=raw["release"],
            previous=tuple(raw["previous"]),
            pinned=tuple(raw["pinned"]),
            promoted_at=float(raw["promoted_at"]),
            reason=str(raw["reason"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"KV champion can't be read: {error}") from error


def parse_wanted(text: str) -> Wanted:
    """Read KV `wanted`; raises ArtifactError when malformed."""
    try:
        raw = json.loads(text)
        return Wanted(releases=tuple(raw["releases"]), candidate=str(raw["candidate"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"KV wanted can't be read: {error}") from error
