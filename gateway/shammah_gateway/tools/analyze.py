"""Tool `analyze_model`: how good is the student on examples that it was not taught, and where would teaching pay.

Dev examples only: exam rows are never handed out. Learning is off and the teacher is not asked.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shammah.v1 import trainer_pb2
from shammah_chassis.errors import PreconditionError, ShammahError, UnavailableError
from shammah_chassis.examples import Example
from shammah_chassis.grading import grade_many
from shammah_chassis.learning_curve import Curve, Point, Prospect, measure_worth
from shammah_chassis.releases import Release
from shammah_chassis.scopes import Caller

from shammah_gateway.checks import check_categories
from shammah_gateway.intervals import clopper_pearson
from shammah_gateway.jobs import Progress
from shammah_gateway.teaching_plan import expected_gain, is_worth, plan_examples
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.query import require_champion
from shammah_gateway.tools.schemas import AnalyzeInput, AnalyzeResult, CategoryAnalysis, CurvePoint
from shammah_gateway.values import Answer, Query

# As many as a pod takes at once without waiting; more would only wait there.
CONCURRENCY = 8
SEED = 0
# Traffic is a better measure of a category's share than the drawn rows, once there is this much of it.
ENOUGH_QUERIES = 200


@dataclass(frozen=True, slots=True)
class Tested:
    """One dev example: was it answered locally, and was the student's response good."""

    category: str
    local: bool
    good: bool


@dataclass(frozen=True, slots=True)
class CategoryState:
    """What is known of a category: its curve and the points it goes through, rows it was taught and rows that wait.

    The accuracy of the few rows tested now is one point of the curve, and no bound of what can be gained: 8 of 9 right
    say less than 150 of 230 in the champion's exam. What waits will be taught with what is planned now.
    """

    points: Sequence[Point]
    prospect: Prospect
    taught: int
    queued: int


async def check_analysis(context: ToolContext, caller: Caller, asked: AnalyzeInput) -> None:
    """Raise what is wrong with a call before a job exists.

    Raises:
        NotFoundError: an unknown category (the message lists the known ones).
        UnavailableError: no release serves, or the trainer is away.
    """
    require_champion(context)
    check_categories(asked.categories, {row.category for row in (await context.trainer.status()).categories})


async def analyze(context: ToolContext, caller: Caller, asked: AnalyzeInput, progress: Progress) -> dict[str, Any]:
    """Test the champion on dev examples; returns an AnalyzeResult as a dict.

    Raises:
        PreconditionError: there are no dev examples yet, or none can be graded.
        UnavailableError: no release serves, the student answers none, or the trainer is away.
    """
    release = require_champion(context)
    rows = {row.category: row for row in (await context.trainer.status()).categories}
    progress.report(0.0, "drawing examples")
    examples = await context.trainer.sample(asked.test_count, asked.categories, SEED)
    if not examples:
        raise PreconditionError(
            "there are no dev examples yet: they come from live traffic that the teacher answers, and from recorded "
            "files (shammah learn)"
        )
    tested = await try_examples(context, release, examples, caller.name, progress)
    result = await summarise(context, release, tested, rows, asked)
    return result.model_dump(exclude={"job"})


async def try_examples(
    context: ToolContext, release: Release, examples: Sequence[Example], user: str, progress: Progress
) -> list[Tested]:
    """Run examples through the cascade and grade the student's responses; ungraded ones are left out.

    Raises:
        UnavailableError: the student answered none of them.
    """
    gate = asyncio.Semaphore(CONCURRENCY)
    done = 0
    failure: ShammahError | None = None

    async def ask(example: Example) -> Answer | None:
        nonlocal done, failure
        query = Query(
            messages=example.query,
            release=release.id,
            no_learn=True,
            local_only=True,
            allow_degraded=True,
            want_attempt=True,
            role_timeout_seconds=context.role_timeout_seconds,
            user=user,
        )
        async with gate:
            try:
                return await context.cascade.ask(query)
            except ShammahError as error:
                failure = error
                return None
            finally:
                done += 1
                progress.report(0.9 * done / len(examples), f"{done} of {len(examples)} tested")

    answers = await asyncio.gather(*map(ask, examples))
    pairs = [
        (answer, example)
        for answer, example in zip(answers, examples, strict=True)
        if answer is not None and answer.attempt is not None
    ]
    if not pairs:
        raise UnavailableError(f"the student answered none of {len(examples)} examples: {failure}")
    progress.report(0.95, "grading")
    grades = await asyncio.to_thread(
        grade_many, [(answer.attempt.text, example) for answer, example in pairs if answer.attempt]
    )
    return [
        Tested(example.category, answer.route == "local", grade.good)
        for (answer, example), grade in zip(pairs, grades, strict=True)
        if grade.good is not None
    ]


async def summarise(
    context: ToolContext,
    release: Release,
    tested: Sequence[Tested],
    rows: Mapping[str, trainer_pb2.CategoryRows],
    asked: AnalyzeInput,
) -> AnalyzeResult:
    """Return the analysis of tested examples of the categories asked for."""
    if not tested:
        raise PreconditionError("none of the drawn examples could be graded")
    points = await _exam_points(context)
    by_category: dict[str, list[Tested]] = {}
    for entry in tested:
        by_category.setdefault(entry.category, []).append(entry)
    shares = _shares(context, by_category, rows)
    states = {name: _state(entries, rows.get(name), points, shares[name]) for name, entries in by_category.items()}
    prospects = {name: state.prospect for name, state in states.items()}
    plan = plan_examples(prospects, asked.example_budget)
    analyses = [_analyse(name, by_category[name], states[name], plan[name], release) for name in sorted(by_category)]
    good = sum(entry.good for entry in tested)
    low, high = clopper_pearson(good, len(tested))
    # By what could be gained, not by failure alone, and not by what is expected alone: little is known of the untried.
    ranked = sorted(prospects, key=lambda name: (-measure_worth(prospects[name]), name))
    return AnalyzeResult(
        local_success=good / len(tested),
        local_success_low=low,
        local_success_high=high,
        tested=len(tested),
        categories=analyses,
        weak_areas=[name for name in ranked if is_worth(prospects[name])],
        estimated_improvement=100.0 * sum(expected_gain(prospects[name], plan[name]) for name in prospects),
        release=release.id,
        local_good=sum(entry.local_good for entry in analyses),
        local_bad=sum(entry.local_bad for entry in analyses),
        forwarded_though_good=sum(entry.forwarded_though_good for entry in analyses),
        untested=sorted(set(asked.categories or [*rows, *release.categories]) - by_category.keys()),
        evidence_age_seconds=max(0.0, time.time() - release.created_at),
    )


def _state(
    entries: Sequence[Tested],
    rows: trainer_pb2.CategoryRows | None,
    points: Mapping[str, Sequence[Point]],
    share: float,
) -> CategoryState:
    queued = rows.new_train if rows is not None else 0
    taught = max(0, rows.train - queued) if rows is not None else 0
    good = sum(entry.good for entry in entries)
    known = [*points.get(entries[0].category, ()), Point(taught, good, len(entries))]
    return CategoryState(known, Prospect(Curve(known), taught + queued, share), taught, queued)


def _analyse(
    name: str, entries: Sequence[Tested], state: CategoryState, planned: int, release: Release
) -> CategoryAnalysis:
    good = sum(entry.good for entry in entries)
    low, high = clopper_pearson(good, len(entries))
    policy = release.categories.get(name)
    return CategoryAnalysis(
        category=name,
        tested=len(entries),
        accuracy=good / len(entries),
        accuracy_low=low,
        accuracy_high=high,
        local_good=sum(entry.local and entry.good for entry in entries),
        local_bad=sum(entry.local and not entry.good for entry in entries),
        forwarded_though_good=sum(entry.good and not entry.local for entry in entries),
        certified=policy is not None and policy.threshold is not None,
        rows_missing=policy.rows_missing if policy else least_rows(release),
        expected_gain=expected_gain(state.prospect),
        recommended_examples=planned,
        share=state.prospect.share,
        trained_examples=state.taught,
        exam_rows=policy.rows if policy else 0,
        reason=policy.reason if policy else "no exam has looked at this category yet",
        queued_examples=state.queued,
        worth_per_example=measure_worth(state.prospect),
        curve=[_write_point(point) for point in state.points if point.graded > 0],
    )


def _write_point(point: Point) -> CurvePoint:
    return CurvePoint(rows=point.rows, accuracy=point.good / point.graded, graded=round(point.graded))


def least_rows(release: Release) -> int:
    """Return how many accepted exam answers certify a category that has none yet: all right, at the release's promise.

    P(no error in n answers that are bad with probability alpha) <= delta / C (Learn-then-Test; Angelopoulos et al.
    2021), C being the categories of the exam and this one.
    """
    alone = release.delta / (len(release.categories) + 1)
    return math.ceil(math.log(alone) / math.log1p(-release.alpha))


def _shares(
    context: ToolContext, by_category: Mapping[str, Sequence[Tested]], rows: Mapping[str, trainer_pb2.CategoryRows]
) -> dict[str, float]:
    """Return each category's share: of the traffic, of the exam while there is little, of what was drawn without one.

    Dev rows come with what is taught: by their number, what was taught most would be worth most.
    """
    for counts in (
        {name: context.monitor.categories[name] for name in by_category},
        {name: rows[name].exam if name in rows else 0 for name in by_category},
    ):
        if sum(counts.values()) >= ENOUGH_QUERIES:
            return {name: count / sum(counts.values()) for name, count in counts.items()}
    total = sum(map(len, by_category.values()))
    return {name: len(entries) / total for name, entries in by_category.items()}


async def _exam_points(context: ToolContext) -> dict[str, list[Point]]:
    """Return per category what the exams of the kept releases found: accuracy by the rows that had been taught.

    A candidate that was held counts too: it shows what its rows were worth. The oldest release also tells, in its gate
    report, the accuracy before its round; how many rows that was after is known only for release 0.
    """
    points: dict[str, list[Point]] = {}
    for release in await context.releases.list_releases():
        compared = release.report.get("categories", {})
        for name, policy in release.categories.items():
            if policy.exam_rows > 0:
                good = policy.accuracy * policy.exam_rows
                points.setdefault(name, []).append(Point(policy.trained_rows, good, policy.exam_rows))
            entry = compared.get(name, {})
            if len(release.ancestry) == 1 and "accuracy_before" in entry:
                graded = float(entry.get("n", 0))
                points.setdefault(name, []).append(Point(0, float(entry["accuracy_before"]) * graded, graded))
    return points
