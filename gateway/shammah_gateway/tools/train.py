"""Tool `train`: start a round at the trainer, follow it, and say what became of its release."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal

from shammah.v1 import types_pb2
from shammah_chassis.errors import NotFoundError, UnavailableError
from shammah_chassis.scopes import Caller

from shammah_gateway.job_record import JobRecord, name_failure
from shammah_gateway.jobs import Progress
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.schemas import CategoryExam, RoleLoss, TrainInput, TrainResult
from shammah_gateway.trainer_client import TrainerClient

ENDED = frozenset({types_pb2.JOB_STATE_DONE, types_pb2.JOB_STATE_FAILED, types_pb2.JOB_STATE_CANCELLED})
# A trainer that is started again after a kill is back within this time, or the job fails.
AWAY_SECONDS = 120.0
PAUSE_SECONDS = 1.0
# The trainer's own words for a release that it would promote; it is "promoted" once it serves.
_VERDICTS: Mapping[str, Literal["promoted", "held", "undecided"]] = {
    "promote": "promoted",
    "base": "promoted",
    "held": "held",
    "undecided": "undecided",
}


async def check_training(context: ToolContext, caller: Caller, asked: TrainInput) -> None:
    """Find nothing wrong: what can't be trained is said by the trainer, once the job is there to be repeated."""


async def follow_round(context: ToolContext, caller: Caller, asked: TrainInput, progress: Progress) -> dict[str, Any]:
    """Start a round, or follow the one that runs; after a restart it is the same round, not another.

    The job's id is the trainer's key for this round, so that a kill between the trainer's yes and our note of it does
    not start a second one.

    Raises:
        PreconditionError: nothing to train on, and whatever else the trainer says.
        UnavailableError: there is no trainer, or it stopped the round.
    """
    remote = progress.state.get("round", "")
    if not remote:
        progress.report(0.0, "asking the trainer")
        remote = (await context.trainer.train(f"asked for by {caller.name}", request_id=progress.job)).id
        progress.save({"round": remote})
    progress.accept()
    job = await _wait_for_end(context.trainer, remote, progress)
    if job.state != types_pb2.JOB_STATE_DONE:
        raise name_failure(job.error_code, job.error_message)
    result = read_result(job.result_json)
    if result.verdict == "promoted" and result.release:
        progress.report(0.95, "the pods load the release", result.model_dump(exclude={"job"}))
        result = await _wait_for_swap(context, result)
    return result.model_dump(exclude={"job"})


async def stop_round(context: ToolContext, record: JobRecord) -> str:
    """Stop the round of a cancelled job at the trainer; returns what became of it, in words.

    Raises:
        UnavailableError: the trainer is away.
    """
    remote = str(record.saved.get("round", ""))
    try:
        job = await context.trainer.stop(remote, request_id=record.id)
    except NotFoundError:
        return "no round had begun; the examples stay queued"
    if job.state == types_pb2.JOB_STATE_DONE:
        release = read_result(job.result_json).release
        return f"too late to stop it: the round had made release {release}; rollback_release or a promotion undoes that"
    if job.state in ENDED:
        return "the round was stopped; the examples stay queued"
    return "the round stops at its next step; the examples stay queued"


async def _wait_for_end(trainer: TrainerClient, remote: str, progress: Progress) -> types_pb2.Job:
    """Ask until the job has ended; a trainer that is away for a while is waited for."""
    away = 0.0
    while True:
        try:
            job = await trainer.get_job(remote, wait_seconds=PAUSE_SECONDS)
        except UnavailableError:
            away += PAUSE_SECONDS
            if away > AWAY_SECONDS:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        away = 0.0
        if job.state in ENDED:
            return job
        progress.report(0.9 * job.progress, job.stage)


async def _wait_for_swap(context: ToolContext, result: TrainResult) -> TrainResult:
    """Wait until the release serves, or is no candidate any more; says why when it does not."""
    name = result.release

    def settled() -> bool:
        champion = context.releases.desired
        passed = champion is not None and champion.release > name
        return name in context.releases.switched_at or passed

    if await context.releases.changed.wait_until(settled, context.hold_seconds):
        at = context.releases.switched_at.get(name, 0.0)
        if at:
            return result.model_copy(update={"swapped_at": at})
    why = context.releases.warning or "not every pod holds it yet"
    return result.model_copy(update={"reasons": [*result.reasons, f"not swapped: {why}"]})


def read_result(text: str) -> TrainResult:
    """Read the result of a round as the trainer wrote it; what it says beyond our schema is left out.

    The trainer writes `losses` by role, and `exam` as two tables (`before`, `after`) by category.
    """
    values = json.loads(text) if text else {}
    exam = values.get("exam", {})
    before, after = exam.get("before", {}), exam.get("after", {})
    verdict = values.get("verdict", "")
    return TrainResult(
        losses=[RoleLoss(role=role, **loss) for role, loss in sorted(values.get("losses", {}).items())],
        exam=[_read_exam(name, before.get(name, {}), after[name]) for name in sorted(after)],
        duration_seconds=values.get("duration_seconds", 0.0),
        release=values.get("release", ""),
        verdict=_VERDICTS.get(verdict, "undecided") if verdict else "",
        reasons=values.get("reasons", []),
        examples_trained=values.get("examples_trained", 0),
    )


def _read_exam(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> CategoryExam:
    return CategoryExam(
        category=name,
        rows=after.get("rows", 0),
        before=before.get("accuracy", 0.0),
        after=after.get("accuracy", 0.0),
        certified=after.get("certified", False),
        local_share_before=before.get("local_share", 0.0),
        local_share_after=after.get("local_share", 0.0),
        rows_missing=after.get("rows_missing", 0),
    )
