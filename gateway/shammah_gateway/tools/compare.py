"""Tool `compare_responses`: the student's response beside the teacher's, and whether they agree."""

from __future__ import annotations

from typing import Any

from shammah_chassis.errors import InvalidInputError, UnavailableError
from shammah_chassis.examples import Message
from shammah_chassis.scopes import Caller

from shammah_gateway.checks import check_query
from shammah_gateway.jobs import Progress
from shammah_gateway.tools.context import ToolContext, run_job, show_job
from shammah_gateway.tools.query import require_champion
from shammah_gateway.tools.schemas import CompareInput, CompareResult
from shammah_gateway.values import Compared, Query

# From this embedding cosine on, with equal facts, two responses say the same.
AGREE_SIMILARITY = 0.8
TEACHER_TOKENS = 1024


async def compare_responses(context: ToolContext, caller: Caller, asked: CompareInput) -> CompareResult:
    """Compare on the champion; the teacher is asked when no response of its is given.

    Raises:
        InvalidInputError, TooLongError: as `check_query`.
        UnavailableError: no release serves, a role is away, or there is no teacher.
        TeacherError, BudgetError: the teacher gave no usable answer.
    """
    if asked.job:
        return await show_job(context, caller, asked.job, CompareResult)
    if not asked.query.strip():
        raise InvalidInputError("query is empty; give a query, or the id of a job")
    query = check_query(
        Query(
            messages=(Message("user", asked.query),),
            role_timeout_seconds=context.role_timeout_seconds,
            user=caller.name,
        )
    )

    async def work(progress: Progress) -> dict[str, Any]:
        return await _compare(context, query, asked.teacher_response, progress)

    return await run_job(context, caller, "compare_responses", work, CompareResult)


async def _compare(
    context: ToolContext, query: Query, teacher_response: str | None, progress: Progress
) -> dict[str, Any]:
    release = require_champion(context)
    progress.report(0.1, "the student answers")
    trial = await context.cascade.student.try_query(query, release, run_anyway=True)
    if trial.attempt is None:
        raise UnavailableError(f"the student can't answer now: {trial.reason}")
    if teacher_response is None:
        if context.teacher is None:
            raise UnavailableError("no teacher is set up; give teacher_response")
        progress.report(0.4, "the teacher answers")
        told = await context.teacher.answer(query.messages, TEACHER_TOKENS, purpose="compare", caller=query.user)
        teacher_response = told.text
    progress.report(0.8, "comparing")
    compared = await context.roles.compare(
        release.id,
        query.text,
        trial.attempt.text,
        teacher_response,
        category=trial.category,
        statistics_a=trial.statistics,
        timeout=context.role_timeout_seconds,
    )
    verdict, reason = judge(trial.attempt.text, teacher_response, compared)
    return CompareResult(
        local_response=trial.attempt.text,
        teacher_response=teacher_response,
        local_quality=compared.quality_a,
        teacher_quality=compared.quality_b,
        similarity=compared.similarity,
        divergence=1.0 - compared.similarity,
        verdict=verdict,
        reason=reason,
        category=trial.category,
        release=release.id,
    ).model_dump(exclude={"job"})


def judge(local: str, teacher: str, compared: Compared) -> tuple[str, str]:
    """Return the verdict ("agree" or "disagree") and its reason."""
    if " ".join(local.lower().split()) == " ".join(teacher.lower().split()):
        return "agree", "the same words"
    if not compared.same_facts:
        return "disagree", "numbers, names or negations differ"
    if compared.similarity >= AGREE_SIMILARITY:
        return "agree", f"similarity {compared.similarity:.2f} is at least {AGREE_SIMILARITY}, and the facts are equal"
    return "disagree", f"similarity {compared.similarity:.2f} is under {AGREE_SIMILARITY}"
