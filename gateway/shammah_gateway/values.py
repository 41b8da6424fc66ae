"""Plain values that pass between the doors, the cascade and the roles.

It knows no transport and no rule: only what a query, an answer and a role's reply are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from shammah_chassis.examples import Message

Route = Literal["local", "teacher", "degraded"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a caller asks, checked already (`shammah_gateway.checks`).

    `max_tokens` 0 means the default of the release; `role_timeout_seconds` 0 that of the gateway; `release` "" the
    champion. `grader` and `category` are what the caller knows about the query, "" when nothing. `user` is the caller;
    `may_audit` says that the teacher may be paid to check a local answer (scope `audit`).

    `no_learn` leaves neither example nor audit nor exploration. `alpha` is the share of bad local answers that the
    caller bears, 0 that of the release; only a stricter one is allowed. `conversation` is the key under which routes
    stick, "" when the door knows none (`shammah_gateway.conversations`). `forward_reason` is why a door already knows
    that the teacher must answer ("requested", "uncertified"), "" when the cascade is to decide.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 0
    temperature: float = 0.0
    release: str = ""
    no_learn: bool = False
    local_only: bool = False
    allow_degraded: bool = False
    want_attempt: bool = False
    role_timeout_seconds: float = 0.0
    grader: str = ""
    category: str = ""
    user: str = ""
    may_audit: bool = False
    alpha: float = 0.0
    conversation: str = ""
    forward_reason: str = ""

    @property
    def text(self) -> str:
        """The last user turn: what the router and the validator look at."""
        return next(turn.content for turn in reversed(self.messages) if turn.role == "user")


@dataclass(frozen=True, slots=True)
class Versions:
    """What answered: the release, and the version of each role that took part ("" for one that did not)."""

    release: str = ""
    router: str = ""
    generator: str = ""
    validator: str = ""


@dataclass(frozen=True, slots=True)
class Routed:
    """The router's reply: P(the local answer is good), category ("" when none is probable enough)."""

    local_probability: float
    category: str
    category_probability: float
    truncated: bool
    version: str


@dataclass(frozen=True, slots=True)
class Generated:
    """The generator's reply; `statistics` by the field names of the proto `GenerationStatistics`."""

    text: str
    finish: Finish
    statistics: Mapping[str, float]
    version: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The validator's reply; all scores 0 to 1, `risk` is "low", "medium" or "high"."""

    quality: float
    uncertainty: float
    on_topic: float
    coherence: float
    hallucination: float
    risk: str
    truncated: bool
    version: str


@dataclass(frozen=True, slots=True)
class Compared:
    """The validator's comparison of two responses to one query."""

    quality_a: float
    quality_b: float
    cosine: float
    same_facts: bool
    similarity: float
    version: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """The student's own response, served or not."""

    text: str
    quality: float
    finish: Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the caller gets, and who made it and why.

    The tokens of a teacher's answer are as billed (0 when nothing was), those of a student's are its own: of the whole
    prompt with its template, and of the response. `stop_reason` is in the words of the Messages API. `passed_over` are
    the teachers that were asked before the one that answered, each with why it did not.
    """

    query_id: str
    text: str
    route: Route
    reason: str
    category: str
    confidence: float
    versions: Versions
    latency_seconds: float
    attempt: Attempt | None = None
    teacher_model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    stop_reason: str = "end_turn"
    passed_over: tuple[tuple[str, str], ...] = ()
