"""Tool `generate_training_data`: examples from the teacher or from the caller, checked and queued for training."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from shammah_chassis.errors import InvalidInputError, UnavailableError
from shammah_chassis.examples import Example
from shammah_chassis.scopes import Caller

from shammah_gateway.checks import check_categories
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import Progress
from shammah_gateway.offers import Sieve, sift_offers
from shammah_gateway.teachers.base import OfferedExample, Teacher, Wish
from shammah_gateway.tools.aim import take_aim
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.doubts import make_doubts
from shammah_gateway.tools.making import Maker, Steps, check_by_trainer, check_seconds
from shammah_gateway.tools.schemas import GenerateInput, GenerateResult, RejectedCount

SAMPLES = 5


async def check_generation(context: ToolContext, caller: Caller, asked: GenerateInput) -> None:
    """Raise what is wrong with a call before a job exists.

    Raises:
        InvalidInputError: no category.
        NotFoundError: a category that neither the ledger nor the teacher knows.
        UnavailableError: no teacher, or the trainer that checks examples is away.
    """
    if not asked.examples:
        await _find_teacher(context, asked.category)


async def generate(context: ToolContext, caller: Caller, asked: GenerateInput, progress: Progress) -> dict[str, Any]:
    """Queue examples; returns a GenerateResult as a dict. Called again after a restart, with `progress.state`.

    What is to be queued is saved before it is, and queueing is by the id of an example: nothing is doubled or lost.

    Raises:
        UnavailableError: no teacher, or the trainer that checks examples is away.
        TeacherError, BudgetError: the teacher made none at all.
    """
    steps = Steps.load(progress)
    if steps.final is None:
        if asked.examples:
            steps.finish(await _sift_own(context, caller, asked, steps, progress))
        else:
            steps.finish(await _make(context, caller, asked, steps, progress))
    return await _queue(context, steps.final or {}, progress)


async def stop_generation(context: ToolContext, record: JobRecord) -> str:
    """End the batch that a cancelled job left going; returns what to tell. What the teacher gave is not queued."""
    batch = record.saved.get("batch") or {}
    told = ["stopped by its caller; nothing is queued"]
    if context.teacher is not None and batch.get("id") and "made" not in batch:
        told.append(await context.teacher.stop_batch(batch, caller=record.owner))
    return "; ".join(told)


async def _sift_own(
    context: ToolContext, caller: Caller, asked: GenerateInput, steps: Steps, progress: Progress
) -> dict[str, Any]:
    """Check the caller's own examples: all that is free, and second answers where the setting says so."""
    offers = [OfferedExample(**row.model_dump()) for row in asked.examples]
    progress.report(0.1, "checking")
    sieve = await asyncio.to_thread(sift_offers, offers, category=asked.category, teacher=caller.name, model="")
    await check_by_trainer(context, sieve)
    note = ""
    if context.agreement.callers and context.teacher is not None:
        note = await check_seconds(context.agreement, context.teacher, sieve, steps=steps, caller=caller.name)
    return _sum_up(sieve, missing=0, note=note)


async def _make(
    context: ToolContext, caller: Caller, asked: GenerateInput, steps: Steps, progress: Progress
) -> dict[str, Any]:
    teacher, samples = await _find_teacher(context, asked.category)
    if steps.aim is None:
        # After a restart the same: what is there already would be taken off again.
        steps.aim = await take_aim(context, asked)
        steps.keep()
    count, difficulty = steps.aim.count, steps.aim.difficulty
    wish = Wish(
        category=asked.category,
        count=count,
        difficulty=difficulty,
        focus=asked.focus,
        samples=samples,
        doubts=make_doubts(context),
    )
    maker = Maker(context, teacher, wish, steps, progress, caller.name)
    await maker.collect()
    return {**_sum_up(maker.total, missing=maker.missing, note=maker.note), **asdict(steps.aim)}


async def _find_teacher(context: ToolContext, category: str) -> tuple[Teacher, tuple[OfferedExample, ...]]:
    """Return who can make examples of a category, and samples of it; raises as `check_generation`."""
    if not category.strip():
        raise InvalidInputError("category is empty; name one, or give examples")
    if context.teacher is None:
        raise UnavailableError("no teacher is set up; give examples instead")
    able = context.teacher.categories()
    known = able if able is not None else {row.category for row in (await context.trainer.status()).categories}
    # With an empty ledger any category is a new one; later a new one is begun by the caller's own examples.
    if known or able is not None:
        check_categories([category], known)
    samples: tuple[OfferedExample, ...] = ()
    if able is None and known:
        drawn = await context.trainer.sample(SAMPLES, [category], 0)
        samples = tuple(OfferedExample(query=row.query_text, response=row.response, grader=row.grader) for row in drawn)
    return context.teacher, samples


def _sum_up(sieve: Sieve, *, missing: int, note: str) -> dict[str, Any]:
    """Return what is to be queued and told, as JSON values."""
    return {
        "examples": [example.to_json() for example in sieve.passed],
        "rejected": [list(row) for row in sieve.rejected],
        "missing": missing,
        "note": f"{missing} examples are missing: {note}" if missing and note else note,
    }


async def _queue(context: ToolContext, final: dict[str, Any], progress: Progress) -> dict[str, Any]:
    examples = [Example.from_json(row) for row in final["examples"]]
    progress.report(0.95, f"queueing {len(examples)} examples")
    queued = (await context.sink.record("generate", examples)).queued if examples else 0
    return GenerateResult(
        queued=queued,
        rejected=[
            RejectedCount(reason=reason, count=count, example=sample) for reason, count, sample in final["rejected"]
        ],
        queue_size=(await context.trainer.status()).queue_size,
        missing=final["missing"],
        note=final["note"],
        count=final.get("count", 0),
        difficulty=final.get("difficulty", ""),
    ).model_dump(exclude={"job"})
