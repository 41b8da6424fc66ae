"""Tool `generate_training_data`: examples from the teacher or from the caller, checked and queued for training."""

from __future__ import annotations

import asyncio
from typing import Any

from shammah_chassis.errors import InvalidInputError, UnavailableError
from shammah_chassis.scopes import Caller

from shammah_gateway.checks import check_categories, check_range
from shammah_gateway.jobs import Progress
from shammah_gateway.offers import Sieve, sift_offers
from shammah_gateway.teachers.base import OfferedExample, Teacher, Wish
from shammah_gateway.tools.context import ToolContext, run_job, show_job
from shammah_gateway.tools.schemas import GenerateInput, GenerateResult, RejectedCount

MIN_COUNT = 10
MAX_COUNT = 100
DIFFICULTIES = ("easy", "medium", "hard")
SAMPLES = 5
# A teacher that was asked before (or a restarted one) may hand out what is there already: ask again, but not for ever.
MAX_ASKS = 20


async def generate_training_data(context: ToolContext, caller: Caller, asked: GenerateInput) -> GenerateResult:
    """Queue examples, as a job.

    Raises:
        InvalidInputError: count outside 10 to 100, an unknown difficulty, or no category.
        NotFoundError: a category that neither the ledger nor the teacher knows.
        UnavailableError: no teacher, or the trainer that checks examples is away.
        TeacherError, BudgetError: the teacher made none.
    """
    if asked.job:
        return await show_job(context, caller, asked.job, GenerateResult)
    if asked.examples:
        offers = [OfferedExample(**row.model_dump()) for row in asked.examples]

        async def queue_offers(progress: Progress) -> dict[str, Any]:
            progress.report(0.1, "checking")
            sieve = await asyncio.to_thread(sift_offers, offers, category=asked.category, teacher=caller.name, model="")
            sieve.apply(await context.trainer.check(sieve.passed))
            return await _queue(context, sieve)

        return await run_job(context, caller, "generate_training_data", queue_offers, GenerateResult)
    wish, teacher = await _check_wish(context, asked)

    async def make(progress: Progress) -> dict[str, Any]:
        return await _queue(context, await _collect(context, teacher, wish, progress, caller=caller.name))

    return await run_job(context, caller, "generate_training_data", make, GenerateResult)


async def _check_wish(context: ToolContext, asked: GenerateInput) -> tuple[Wish, Teacher]:
    check_range("count", asked.count, MIN_COUNT, MAX_COUNT)
    difficulty = asked.difficulty or "medium"
    if difficulty not in DIFFICULTIES:
        raise InvalidInputError(f"difficulty {difficulty!r} is not known; allowed: {', '.join(DIFFICULTIES)}")
    if not asked.category.strip():
        raise InvalidInputError("category is empty; name one, or give examples")
    if context.teacher is None:
        raise UnavailableError("no teacher is set up; give examples instead")
    able = context.teacher.categories()
    known = able if able is not None else {row.category for row in (await context.trainer.status()).categories}
    # With an empty ledger any category is a new one; later a new one is begun by the caller's own examples.
    if known or able is not None:
        check_categories([asked.category], known)
    samples: tuple[OfferedExample, ...] = ()
    if able is None and known:
        drawn = await context.trainer.sample(SAMPLES, [asked.category], 0)
        samples = tuple(OfferedExample(query=row.query_text, response=row.response, grader=row.grader) for row in drawn)
    wish = Wish(category=asked.category, count=asked.count, difficulty=difficulty, focus=asked.focus, samples=samples)
    return wish, context.teacher


async def _collect(context: ToolContext, teacher: Teacher, wish: Wish, progress: Progress, *, caller: str) -> Sieve:
    """Ask the teacher until the wish is met or it has no more; each round is checked before the next one."""
    total = Sieve()
    for turn in range(MAX_ASKS):
        missing = wish.count - len(total.passed)
        progress.report(len(total.passed) / wish.count, f"the teacher writes {missing} examples")
        made = await teacher.generate(
            Wish(
                category=wish.category,
                count=missing,
                difficulty=wish.difficulty,
                focus=wish.focus,
                samples=wish.samples,
            ),
            caller=caller,
        )
        sieve = await asyncio.to_thread(
            sift_offers, made.examples, category=wish.category, teacher=teacher.name, model=made.model
        )
        sieve.apply(await context.trainer.check(sieve.passed))
        _merge(total, sieve)
        # A paid teacher that repeats itself is not asked again and again for the rest.
        if not made.examples or len(total.passed) >= wish.count or (turn >= 1 and teacher.categories() is None):
            break
    return total


def _merge(total: Sieve, part: Sieve) -> None:
    total.counts.update(part.counts)
    for reason, sample in part.samples.items():
        total.samples.setdefault(reason, sample)
    for example in part.passed:
        total.add(example)


async def _queue(context: ToolContext, sieve: Sieve) -> dict[str, Any]:
    queued = 0
    if sieve.passed:
        queued = (await context.sink.record("generate", sieve.passed)).queued
    return GenerateResult(
        queued=queued,
        rejected=[
            RejectedCount(
                reason=reason,
                count=count,
                example=sample,
            )
            for reason, count, sample in sieve.rejected
        ],
        queue_size=(await context.trainer.status()).queue_size,
    ).model_dump(exclude={"job"})
