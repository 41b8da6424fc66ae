"""Tool `compare_responses`: the student's response beside the teacher's, and whether they agree."""

from __future__ import annotations

from typing import Any, Literal

from shammah_chassis.errors import BudgetError, InvalidInputError, TeacherError, UnavailableError
from shammah_chassis.examples import Message, default_grader
from shammah_chassis.fields import check_text
from shammah_chassis.scopes import Caller
from shammah_chassis.text import collapse_whitespace

from shammah_gateway.checks import check_query
from shammah_gateway.jobs import Progress
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.query import require_champion
from shammah_gateway.tools.schemas import CompareInput, CompareResult
from shammah_gateway.values import Compared, Query

# From this embedding cosine on, with equal facts, two responses say the same.
AGREE_SIMILARITY = 0.8
TEACHER_TOKENS = 1024


async def check_comparison(context: ToolContext, caller: Caller, asked: CompareInput) -> None:
    """Raise what is wrong with a call before a job exists.

    Raises:
        InvalidInputError, TooLongError: as `check_query`.
        UnavailableError: no release serves, or there is no teacher to ask.
    """
    _make_query(context, caller, asked)
    require_champion(context)
    if asked.teacher_response is None and context.teacher is None:
        raise UnavailableError("no teacher is set up; give teacher_response")


async def compare(context: ToolContext, caller: Caller, asked: CompareInput, progress: Progress) -> dict[str, Any]:
    """Compare on the champion; the teacher is asked, once, when no response of its is given.

    Raises:
        UnavailableError: no release serves, a role is away, or there is no teacher.
        TeacherError, BudgetError: the teacher gave no usable answer.
    """
    query = _make_query(context, caller, asked)
    release = require_champion(context)
    progress.report(0.1, "the student answers")
    trial = await context.cascade.student.try_query(query, release, run_anyway=True)
    if trial.attempt is None:
        raise UnavailableError(f"the student can't answer now: {trial.reason}")
    teacher_response = asked.teacher_response or await _ask_teacher(context, query, progress)
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
    if asked.teacher_response is None and needs_judge(trial.attempt.text, teacher_response):
        progress.report(0.9, "the teacher judges")
        verdict, reason = await _ask_judge(context, query, trial.attempt.text, teacher_response) or (verdict, reason)
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


async def _ask_teacher(context: ToolContext, query: Query, progress: Progress) -> str:
    """Return what the teacher says; what it said before a restart is not paid for again."""
    told: str | None = progress.state.get("teacher_response")
    if told is not None:
        return told
    if context.teacher is None:
        raise UnavailableError("no teacher is set up; give teacher_response")
    progress.report(0.4, "the teacher answers")
    answer = await context.teacher.answer(query.messages, TEACHER_TOKENS, purpose="compare", caller=query.user)
    try:
        check_text(answer.text, "response")
    except InvalidInputError as error:
        # Neither the validator nor the caller can be handed it.
        raise TeacherError(f"the teacher's answer can't be compared: {error.message}") from error
    progress.save({"teacher_response": answer.text})
    return answer.text


def _make_query(context: ToolContext, caller: Caller, asked: CompareInput) -> Query:
    if not asked.query.strip():
        raise InvalidInputError("query is empty; give a query, or the id of a job")
    return check_query(
        Query(
            messages=(Message("user", asked.query),),
            role_timeout_seconds=context.role_timeout_seconds,
            user=caller.name,
        )
    )


def needs_judge(local: str, teacher: str) -> bool:
    """Say whether no offline grader fits: free text that is not the same words."""
    return default_grader(teacher) == "judge" and collapse_whitespace(local) != collapse_whitespace(teacher)


async def _ask_judge(
    context: ToolContext, query: Query, local: str, teacher: str
) -> tuple[Literal["agree", "disagree"], str] | None:
    """Return verdict and reason of the teacher as judge; None where it can't say: then embeddings and facts do."""
    if context.teacher is None:
        return None
    try:
        told = await context.teacher.judge(query.text, teacher, local, purpose="compare", caller=query.user)
    except (TeacherError, BudgetError):
        return None
    return "agree" if told.agrees else "disagree", f"judged by {told.model}: {told.reason}"


def judge(local: str, teacher: str, compared: Compared) -> tuple[Literal["agree", "disagree"], str]:
    """Return the verdict and its reason."""
    if " ".join(local.lower().split()) == " ".join(teacher.lower().split()):
        return "agree", "the same words"
    if not compared.same_facts:
        return "disagree", "numbers, names or negations differ"
    if compared.similarity >= AGREE_SIMILARITY:
        return "agree", f"similarity {compared.similarity:.2f} is at least {AGREE_SIMILARITY}, and the facts are equal"
    return "disagree", f"similarity {compared.similarity:.2f} is under {AGREE_SIMILARITY}"
