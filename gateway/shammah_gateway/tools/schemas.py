"""Inputs and results of the five tools, as the schemas that every face shows. Field names are those of the proto.

It holds no behaviour.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from shammah_chassis.examples import MAX_QUERY_CHARS, MAX_RESPONSE_CHARS

from shammah_gateway.checks import MAX_NEW_TOKENS
from shammah_gateway.jobs import JobRecord

Text = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
JobId = Annotated[str, Field(description="Id of a job that runs: its state is returned, nothing new is started.")]
NAME_CHARS = 256


class Strict(BaseModel):
    """An input: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class QueryInput(Strict):
    """Ask the local student, whatever the cascade would do."""

    query: Text
    max_tokens: int = Field(0, ge=0, le=MAX_NEW_TOKENS, description="0: the default of the category.")


class CompareInput(Strict):
    """Compare the student's response with the teacher's."""

    query: str = Field("", max_length=MAX_QUERY_CHARS)
    teacher_response: str | None = Field(
        None, min_length=1, max_length=MAX_RESPONSE_CHARS, description="Absent: the teacher is asked."
    )
    job: JobId = ""


class OfferedInput(Strict):
    """One example that the caller made; an empty query or response is rejected by itself, not the whole call."""

    query: str = ""
    response: str = ""
    category: str = ""
    grader: str = ""


class GenerateInput(Strict):
    """Have the teacher make examples of a category, or offer examples."""

    category: str = Field("", max_length=NAME_CHARS)
    count: int = Field(0, description="10 to 100.")
    difficulty: str = Field("", description="easy, medium or hard; empty: medium.")
    focus: str = Field("", max_length=1000)
    examples: list[OfferedInput] = Field(default_factory=list, max_length=256)
    job: JobId = ""


class AnalyzeInput(Strict):
    """Test the student on examples that it was not taught."""

    test_count: int = Field(0, description="50 to 200; 0 means 100.")
    categories: list[str] = Field(default_factory=list, max_length=NAME_CHARS)
    job: JobId = ""


class TrainInput(Strict):
    """Start a round of training now."""

    wait: bool = Field(False, description="Wait up to 25 s for its end.")
    job: JobId = ""


class JobView(BaseModel):
    """State of a job."""

    id: str
    kind: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float
    stage: str
    error_code: str
    error_message: str
    created_at: float
    started_at: float
    ended_at: float
    result_json: str = ""

    @classmethod
    def of(cls, record: JobRecord) -> JobView:
        """Return the view of a record; `result_json` only once it is done."""
        names = [name for name in cls.model_fields if name != "result_json"]
        text = json.dumps(record.result) if record.state == "done" else ""
        return cls.model_validate({**{name: getattr(record, name) for name in names}, "result_json": text})


class QueryResult(BaseModel):
    """What the student says, and how it is judged (scores 0 to 1, latency in seconds)."""

    response: str
    quality: float
    uncertainty: float
    coherence: float
    on_topic: float
    hallucination_risk: Literal["low", "medium", "high"]
    category: str
    release: str
    latency_seconds: float
    would_serve: bool


class CompareResult(BaseModel):
    """Both responses and how they differ; `verdict` is "agree" or "disagree"."""

    local_response: str = ""
    teacher_response: str = ""
    local_quality: float = 0.0
    teacher_quality: float = 0.0
    similarity: float = 0.0
    divergence: float = 0.0
    verdict: str = ""
    reason: str = ""
    category: str = ""
    release: str = ""
    job: JobView | None = None


class RejectedCount(BaseModel):
    """How many examples were rejected for one reason, with one of them."""

    reason: Literal["schema", "duplicate", "near_exam", "failed_check"]
    count: int
    example: str


class GenerateResult(BaseModel):
    """What was queued for training."""

    queued: int = 0
    rejected: list[RejectedCount] = Field(default_factory=list)
    queue_size: int = 0
    job: JobView | None = None


class CategoryAnalysis(BaseModel):
    """One category: accuracy of the student with a 95 % interval, and what the cascade did."""

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


class AnalyzeResult(BaseModel):
    """The analysis: `local_success` is the student's accuracy; improvement in points."""

    local_success: float = 0.0
    local_success_low: float = 0.0
    local_success_high: float = 0.0
    tested: int = 0
    categories: list[CategoryAnalysis] = Field(default_factory=list)
    weak_areas: list[str] = Field(default_factory=list)
    estimated_improvement: float = 0.0
    release: str = ""
    job: JobView | None = None


class RoleLoss(BaseModel):
    """Loss of one role before and after a round."""

    role: str
    before: float = 0.0
    after: float = 0.0


class CategoryExam(BaseModel):
    """Exam of one category before and after a round."""

    category: str
    rows: int = 0
    before: float = 0.0
    after: float = 0.0
    certified: bool = False
    local_share_before: float = 0.0
    local_share_after: float = 0.0
    rows_missing: int = 0


class TrainResult(BaseModel):
    """A round: `verdict` is "promoted", "held", "undecided" or "" while it runs; `swapped_at` Unix seconds or 0."""

    losses: list[RoleLoss] = Field(default_factory=list)
    exam: list[CategoryExam] = Field(default_factory=list)
    duration_seconds: float = 0.0
    release: str = ""
    verdict: str = ""
    reasons: list[str] = Field(default_factory=list)
    swapped_at: float = 0.0
    examples_trained: int = 0
    job: JobView | None = None
