"""What the tools work with: the parts of the gateway, handed over once; and how a tool runs as a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel
from shammah_chassis.errors import InvalidInputError, UnavailableError
from shammah_chassis.scopes import Caller

from shammah_gateway.agreement import AgreementPolicy
from shammah_gateway.cascade import Cascade
from shammah_gateway.consent.consent import Consent
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import JobBook, OnProgress, Progress, Work
from shammah_gateway.monitor import Monitor
from shammah_gateway.ports import ExampleSink, Roles
from shammah_gateway.releases import ReleaseController
from shammah_gateway.teachers.base import Teacher
from shammah_gateway.tools.schemas import JobView
from shammah_gateway.trainer_client import TrainerClient

ResultModel = TypeVar("ResultModel", bound=BaseModel)
# How long resumed work waits for a release and for the trainer before it runs into their absence.
PARTS_SECONDS = 120.0
LOOK_SECONDS = 1.0
# They say how a call is answered, not what is done.
MANNER = frozenset({"job", "cancel", "wait"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The parts that tools use; `role_timeout_seconds` is for tools, where nobody waits for a first byte.

    `consent` None: no call is noted and nothing is masked.
    """

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
    consent: Consent | None = None
    agreement: AgreementPolicy = field(default_factory=AgreementPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongWork:
    """A tool that runs as a job, in plain functions so that it can begin again after a restart.

    `check(context, caller, asked)` raises what is wrong before a job exists. `run(context, caller, asked, progress)`
    returns the result as a dict; after a restart it is called again, and `progress.state` is what it saved.
    `stop(context, record)` ends what a cancelled run left going elsewhere and returns what to tell.
    `exclusive`: one at a time. `patient(asked)`: whether the call waits for the end or only for the start.
    """

    check: Callable[[ToolContext, Caller, Any], Awaitable[None]]
    run: Callable[[ToolContext, Caller, Any, Progress], Awaitable[dict[str, Any]]]
    stop: Callable[[ToolContext, JobRecord], Awaitable[str]] | None = None
    exclusive: bool = False
    patient: Callable[[Any], bool] = lambda _: True


async def run_job(
    context: ToolContext,
    caller: Caller,
    kind: str,
    asked: BaseModel,
    long: LongWork,
    result: type[ResultModel],
    *,
    request_id: str = "",
    on_progress: OnProgress | None = None,
) -> ResultModel:
    """Start a job and wait a while; returns the result if it is there, else the job. A failure is raised.

    The same `request_id` finds the same job again, whatever became of it.

    Raises:
        ShammahError: what `check` found, what `JobBook.start` refuses, or what the job failed with.
    """
    jobs = context.jobs
    arguments = asked.model_dump(mode="json", exclude=set(MANNER), exclude_defaults=True)
    record = jobs.find(caller.name, kind, request_id, arguments)
    if record is None:
        await long.check(context, caller, asked)
        record = jobs.start(
            kind,
            caller,
            bind_work(context, caller, asked, long),
            arguments=arguments,
            request_id=request_id,
            exclusive=long.exclusive,
        )
    patient = long.patient(asked)
    await jobs.wait(record, accepted=not patient, on_progress=on_progress)
    if patient or not record.accepted:
        jobs.raise_failure(record)
    return fill_result(record, result)


async def show_job(
    context: ToolContext,
    caller: Caller,
    kind: str,
    job: str,
    result: type[ResultModel],
    *,
    cancel: bool = False,
    on_progress: OnProgress | None = None,
) -> ResultModel:
    """Return what a job that was started before is worth by now, waiting at most 25 s for its end; or stop it.

    Raises:
        NotFoundError: no such job of this caller. InvalidInputError: a job of another tool.
    """
    record = context.jobs.get(job, caller.name)
    if record.kind != kind:
        raise InvalidInputError(f"job {job!r} is one of {record.kind}; ask that tool for it")
    if cancel:
        return fill_result(await context.jobs.cancel(job, caller.name), result)
    return fill_result(await context.jobs.wait(record, on_progress=on_progress), result)


def bind_work(context: ToolContext, caller: Caller, asked: BaseModel, long: LongWork, *, resumed: bool = False) -> Work:
    """Return the work of a job; a resumed one first waits until the parts that it needs are up."""

    async def run(progress: Progress) -> dict[str, Any]:
        if resumed:
            await _wait_for_parts(context)
        return await long.run(context, caller, asked, progress)

    stop = long.stop
    if stop is None:
        return Work(run)
    return Work(run, lambda record: stop(context, record))


def fill_result(record: JobRecord, result: type[ResultModel]) -> ResultModel:
    """Return the result of a job as far as it is known, with the job."""
    values: dict[str, Any] = dict(record.result or {})
    known = {name: value for name, value in values.items() if name in result.model_fields}
    return result.model_validate({**known, "job": JobView.of(record)})


async def _wait_for_parts(context: ToolContext) -> None:
    """Wait until a release serves and the trainer answers, at most two minutes: then the work says what is away."""
    end = time.monotonic() + PARTS_SECONDS
    await context.releases.changed.wait_until(lambda: context.releases.champion() is not None, PARTS_SECONDS)
    while time.monotonic() < end:
        try:
            await context.trainer.status()
        except UnavailableError:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return
