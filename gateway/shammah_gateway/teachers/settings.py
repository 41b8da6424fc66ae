"""Settings of the teachers: who they are, in which order they are asked, and with how much patience."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from shammah_gateway.teachers.batch_desk import BatchMode, BatchPolicy
from shammah_gateway.teachers.breaker import BreakerLimits
from shammah_gateway.teachers.openai_compatible import OutputForm
from shammah_gateway.teachers.retry import RetryPolicy

TeacherName = Literal["anthropic", "anthropic_backup", "openai", "recorded"]
TeacherNames = Annotated[tuple[TeacherName, ...], NoDecode]


class TeacherSettings(BaseModel):
    """Mixed into the settings of the gateway. Lists are separated by commas."""

    teacher: Literal["recorded", "anthropic", "openai", "none"] = Field(
        "none", description="Who answers what is forwarded, if it is one."
    )
    teachers: TeacherNames = Field(
        (), description='Teachers in the order that they are asked, "anthropic,openai"; empty: the one in `teacher`.'
    )
    anthropic_model: str = Field("claude-sonnet-5-5", min_length=1, description="Model id.")
    anthropic_base_url: str | None = Field(None, description="Another address of the Messages API.")
    anthropic_key_file: Path | None = Field(None, description="File with the key; else ANTHROPIC_API_KEY is used.")
    anthropic_backup_model: str = Field("", description="Model id of `anthropic_backup`; empty: the same.")
    anthropic_backup_base_url: str | None = Field(None, description="Address of `anthropic_backup`; unset: the same.")
    anthropic_backup_key_file: Path | None = Field(
        None, description="File with its key; it may be unset at the same address only."
    )
    openai_model: str = Field("", description="Model id at the OpenAI-style address.")
    openai_base_url: str = Field(
        "", pattern=r"^(https?://.+)?$", description="What stands before /chat/completions, http://host:8000/v1."
    )
    openai_key_file: Path | None = Field(None, description="File with its key, if it wants one.")
    openai_form: OutputForm = Field("json_schema", description="How it is told the form of generated examples.")

    teacher_timeout_seconds: float = Field(60.0, gt=0, le=600, description="Patience with all teachers together.")
    teacher_attempts: int = Field(2, ge=1, le=10, description="Calls to one teacher for one answer.")
    teacher_retry_seconds: float = Field(10.0, ge=0, le=600, description="All pauses between them, at most.")
    teacher_max_pause_seconds: float = Field(
        2.0, ge=0, le=60, description="One pause at most, whatever retry-after says."
    )
    teach_batches: BatchMode = Field(
        "auto", description='Message Batches (half price, within hours): "auto" for many examples, always or never.'
    )
    teach_batch_from: int = Field(50, ge=1, le=100, description="From how many examples on auto uses a batch.")
    teach_batch_poll_seconds: float = Field(5.0, gt=0, le=60, description="First pause before a batch is looked at.")
    teach_agreement_share: float = Field(
        1.0, ge=0, le=1, description="Share of a teacher's new examples that it must answer a second time alike."
    )
    teach_agreement_max: int = Field(200, ge=0, description="Most examples that one call has answered a second time.")
    teach_agreement_callers: bool = Field(
        False, description="Whether examples that a caller offers are answered by the teacher too, at its price."
    )

    breaker_failures: int = Field(5, ge=1, description="Failures in a row after which a teacher is left alone.")
    breaker_window_seconds: float = Field(60.0, gt=0, description="Window for the share of failures.")
    breaker_share: float = Field(0.5, gt=0, le=1, description="Share of failed calls that opens, of 20 or more.")
    breaker_open_seconds: float = Field(15.0, gt=0, description="How long it is left alone at first; then doubled.")
    breaker_max_open_seconds: float = Field(120.0, gt=0, description="How long at most, whatever retry-after says.")

    @field_validator("teachers", mode="before")
    @classmethod
    def _split_teachers(cls, value: object) -> object:
        """Read a list that is separated by commas."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _check_teachers(self) -> Self:
        """Refuse what can't work, before anything starts."""
        names = self.teacher_names
        if len(set(names)) != len(names):
            raise ValueError(f"a teacher is named twice in {','.join(names)}")
        if "openai" in names and not (self.openai_base_url and self.openai_model):
            raise ValueError("the openai teacher needs openai_base_url and openai_model")
        same = self.anthropic_backup_base_url in (None, self.anthropic_base_url)
        if "anthropic_backup" in names and same and self.anthropic_backup_model in ("", self.anthropic_model):
            raise ValueError("anthropic_backup needs another anthropic_backup_base_url or anthropic_backup_model")
        if "anthropic_backup" in names and not same and self.anthropic_backup_key_file is None:
            # The key of the first (or of the environment) is not shown to another server.
            raise ValueError("anthropic_backup at another address needs anthropic_backup_key_file")
        return self

    @property
    def teacher_names(self) -> tuple[TeacherName, ...]:
        """The teachers in order; none at all for "none"."""
        if self.teachers:
            return self.teachers
        return () if self.teacher == "none" else (self.teacher,)

    @property
    def breaker_limits(self) -> BreakerLimits:
        """The limits of each teacher's breaker."""
        return BreakerLimits(
            failures=self.breaker_failures,
            window_seconds=self.breaker_window_seconds,
            share=self.breaker_share,
            open_seconds=self.breaker_open_seconds,
            max_open_seconds=max(self.breaker_max_open_seconds, self.breaker_open_seconds),
        )

    @property
    def batch_policy(self) -> BatchPolicy:
        """When and how Message Batches are used."""
        return BatchPolicy(
            mode=self.teach_batches,
            from_count=self.teach_batch_from,
            first_pause_seconds=self.teach_batch_poll_seconds,
        )

    def plan_retries(self, *, last: bool) -> RetryPolicy:
        """Return the retry policy of a teacher; the last one in the list is tried though it asks for a long wait."""
        return RetryPolicy(
            attempts=self.teacher_attempts,
            seconds=self.teacher_retry_seconds,
            max_pause_seconds=self.teacher_max_pause_seconds,
            skip_long_waits=not last,
        )
