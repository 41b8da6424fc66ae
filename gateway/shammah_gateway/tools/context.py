"""What the tools work with: the parts of the gateway, handed over once; and how a tool runs as a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from shammah_chassis.scopes import Caller

from shammah_gateway.cascade import Cascade
from shammah_gateway.jobs import MAX_WAIT_SECONDS, JobBook, JobRecord, Work
from shammah_gateway.monitor import Monitor
from shammah_gateway.ports import ExampleSink, Roles
from shammah_gateway.releases import ReleaseController
from shammah_gateway.teachers.base import Teacher
from shammah_gateway.tools.schemas import JobView
from shammah_gateway.trainer_client import TrainerClient

ResultModel = TypeVar("ResultModel", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The parts that tools use; `role_timeout_seconds` is for tools, where nobody waits for a first byte."""

    cascade: Cascade
    roles: Roles
    releases: ReleaseController
    trainer: TrainerClient
    teacher: Teacher | None
    sink: ExampleSink
    jobs: JobBook
    monitor: Monitor
    role_timeout_seconds: float = 30.0
    hold_seconds: float = 300.0


async def run_job(
    context: ToolContext,
    caller: Caller,
    kind: str,
    work: Work,
    result: type[ResultModel],
    *,
    wait_seconds: float = MAX_WAIT_SECONDS,
) -> ResultModel:
    """Start a job and wait a while; returns the result if it is there, else the job. A failure is raised."""
    record = context.jobs.start(kind, caller.name, work)
    await context.jobs.wait(record, wait_seconds)
    context.jobs.raise_failure(record)
    return _fill(record, result)


async def show_job(context: ToolContext, caller: Caller, job: str, result: type[ResultModel]) -> ResultModel:
    """Return what a job that was started before is worth by now, waiting at most 25 s for its end.

    Raises:
        NotFoundError: no such job of this caller.
    """
    record = await context.jobs.wait(context.jobs.get(job, caller.name))
    return _fill(record, result)


def _fill(record: JobRecord, result: type[ResultModel]) -> ResultModel:
    values: dict[str, Any] = dict(record.result or {})
    known = {name: value for name, value in values.items() if name in result.model_fields}
    return result.model_validate({**known, "job": JobView.of(record)})
