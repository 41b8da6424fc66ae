"""What the calls return: frozen dataclasses with the names of the contract.

Times are Unix seconds, 0 when not yet; scores and shares are 0 to 1. It holds no behaviour but `Job.result`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What answered: a release and the version of each role that took part ("" for one that did not)."""

    release: str
    router: str
    generator: str
    validator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The student's own response, served or not; `finish` is "stop" or "length"."""

    text: str
    quality: float
    finish: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer: `route` is "local", "teacher" or "degraded", `reason` says why.

    Tokens are as billed by the teacher, or the student's own counts; `stop_reason` is in the words of the Messages API.
    """

    query_id: str
    text: str
    route: str
    reason: str
    category: str
    confidence: float
    versions: Versions
    attempt: Attempt | None
    latency_seconds: float
    teacher_model: str
    input_tokens: int
    output_tokens: int
    stop_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Long work: `state` is queued, running, done, failed or cancelled; `progress` 0 to 1, `stage` in words."""

    id: str
    kind: str
    state: str
    progress: float
    stage: str
    error_code: str
    error_message: str
    result_json: str
    created_at: float
    started_at: float
    ended_at: float

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.state in ENDED

    @property
    def result(self) -> dict[str, Any]:
        """The structured result; empty until it is done."""
        found: dict[str, Any] = json.loads(self.result_json) if self.result_json else {}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResponse:
    """The student's response and how it is judged; `hallucination_risk` is low, medium or high."""

    response: str
    quality: float
    uncertainty: float
    coherence: float
    on_topic: float
    hallucination_risk: str
    category: str
    release: str
    latency_seconds: float
    would_serve: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The student's and the teacher's response; `verdict` is "agree" or "disagree" ("" while the job runs)."""

    local_response: str
    teacher_response: str
    local_quality: float
    teacher_quality: float
    similarity: float
    divergence: float
    verdict: str
    reason: str
    category: str
    release: str
    job: Job | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """How many examples were rejected for a reason, with one of them."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedData:
    """What `generate_training_data` queued; `missing` of what was wished for, `note` why or what is unchecked."""

    queued: int
    rejected: tuple[Rejected, ...]
    queue_size: int
    missing: int
    note: str
    count: int
    difficulty: str
    job: Job | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """After `rows` taught examples, `accuracy` of `graded` answers."""

    rows: int
    accuracy: float
    graded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryAnalysis:
    """One category: accuracy of the student with its interval, and what the cascade did."""

    category: str
    tested: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    local_good: int
    local_bad: int
    forwarded_though_good: int
    certified: bool
    rows_missing: int
    expected_gain: float
    recommended_examples: int
    share: float
    trained_examples: int
    exam_rows: int
    reason: str
    queued_examples: int
    worth_per_example: float
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """How good the student is; `weak_areas` are categories by their worth, best first, improvement is in points."""

    local_success: float
    local_success_low: float
    local_success_high: float
    tested: int
    categories: tuple[CategoryAnalysis, ...]
    weak_areas: tuple[str, ...]
    estimated_improvement: float
    release: str
    job: Job | None
    local_good: int
    local_bad: int
    forwarded_though_good: int
    untested: tuple[str, ...]
    evidence_age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleLoss:
    """Loss of a role before and after a round."""

    role: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryExam:
    """Exam of a category before and after a round."""

    category: str
    rows: int
    before: float
    after: float
    certified: bool
    local_share_before: float
    local_share_after: float
    rows_missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round of training; `verdict` is promoted, held, undecided, or "" while it runs."""

    job: Job | None
    losses: tuple[RoleLoss, ...]
    exam: tuple[CategoryExam, ...]
    duration_seconds: float
    release: str
    verdict: str
    reasons: tuple[str, ...]
    swapped_at: float
    examples_trained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a rating became: `effect` is "example", "judge_only" or "duplicate"."""

    effect: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What became of submitted examples; `spooled`: the event bus is away, they wait on the gateway's disk."""

    queued: int
    rejected: tuple[Rejected, ...]
    spooled: bool
