"""What the gateway says about releases and about itself: frozen dataclasses with the names of the contract."""

from __future__ import annotations

from dataclasses import dataclass

from shammah_client.money import Money
from shammah_client.results import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCertificate:
    """What a release may answer in a category, and on which evidence.

    From `state` on only a status tells: certified, uncertified, tightened (drift) or withdrawn (broken promise); graded
    audits and how many were bad; audits and seconds until twice the promised share of bad answers would be noticed (0:
    nobody could say); how long ago the exam was graded; the stability index of its scores.
    """

    category: str
    certified: bool
    threshold: float
    exam_rows: int
    accepted: int
    errors: int
    rows_missing: int
    accuracy: float
    reason: str
    state: str
    audits: int
    audits_bad: int
    audits_to_notice: int
    seconds_to_notice: float
    evidence_seconds: float
    score_drift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release; `state` is champion, candidate, previous, held, undecided or ""."""

    id: str
    parent: str
    created_at: float
    state: str
    pinned: bool
    verdict: str
    reasons: tuple[str, ...]
    versions: Versions
    categories: tuple[CategoryCertificate, ...]
    precision: str
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """The champion after a promotion, and the one before it."""

    champion: str
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """The champion after a rollback, the one before it, and how long it took."""

    champion: str
    previous: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What a forgotten request left behind and is gone, and the releases whose weights still hold what they learned."""

    examples: tuple[str, ...]
    messages: int
    spooled: int
    rollouts: int
    remembered: bool
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unparked:
    """How many examples are queued again, and their categories."""

    examples: int
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTaken:
    """A checkpoint that was taken, and the release that serves."""

    id: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the whole: router, generator, validator, trainer, nats or teacher."""

    name: str
    ready: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of the whole; `promise` is "monitored" or "promise not monitored" with the reason."""

    champion: str
    candidate: str
    parts: tuple[Part, ...]
    categories: tuple[CategoryCertificate, ...]
    queries: int
    local: int
    forwarded: int
    failed: int
    spooled: int
    teacher_calls: int
    promise: str
    queue_size: int
    warnings: tuple[str, ...]
    money: Money | None
