"""One job as it is kept: who asked for what, how far it is, what it saved, how it ended. Plain values, no work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shammah_chassis.errors import ShammahError, UnavailableError
from shammah_chassis.examples import canonical_json
from shammah_chassis.scopes import Caller

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
# Codes that are words of the trainer, and what they are here.
_FOREIGN: Mapping[str, type[ShammahError]] = {"training_stopped": UnavailableError, "interrupted": UnavailableError}


@dataclass(slots=True)
class JobRecord:
    """State of one job; times are Unix seconds, 0 when not yet; `result` is the tool's result once done.

    `scopes` are the caller's when it asked. `request_id` is the caller's key for "this again"; `digest` tells whether
    the same arguments came with it. `arguments` and `saved` (what the work needs in order to go on after a restart) are
    forgotten at the end. `accepted`: the work is under way elsewhere. `resumes`: how often a restart interrupted it.
    `cancelling`: its caller wants it stopped; with an `error_code` it is stopped because its caller may no longer have
    it run.
    """

    id: str
    kind: str
    owner: str
    state: State = "queued"
    progress: float = 0.0
    stage: str = ""
    error_code: str = ""
    error_message: str = ""
    result: dict[str, Any] | None = None
    created_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    scopes: list[str] = field(default_factory=list)
    request_id: str = ""
    digest: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    accepted: bool = False
    cancelling: bool = False
    resumes: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED

    @property
    def caller(self) -> Caller:
        """Who asked, with the scopes of then."""
        return Caller(self.owner, frozenset(self.scopes))

    @property
    def key(self) -> tuple[str, str, str]:
        """Owner, kind and request id: the same key is the same job. Without a request id it means nothing."""
        return self.owner, self.kind, self.request_id


def digest_of(arguments: Mapping[str, Any]) -> str:
    """Return the SHA-256 of arguments in their canonical JSON."""
    return hashlib.sha256(canonical_json(dict(arguments)).encode("utf-8", "surrogatepass")).hexdigest()


def name_failure(code: str, message: str) -> ShammahError:
    """Return the named error of a job that failed, by its code; one that is not known is an internal error."""
    kinds: list[type[ShammahError]] = [ShammahError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    # A class without a code of its own is its base with more detail: the base wins.
    known: dict[str, type[ShammahError]] = {kind.code: kind for kind in reversed(kinds)}
    known.update(_FOREIGN)
    return known.get(code, ShammahError)(message or "it was cancelled")
