"""Tool `analyze_model`: how good is the student on examples that it was not taught, and where would teaching pay.

Dev examples only: exam rows are never handed out. Learning is off and the teacher is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shammah.v1 import trainer_pb2
from shammah_chassis.errors import PreconditionError, ShammahError, UnavailableError
from shammah_chassis.examples import Example
from shammah_chassis.grading import grade_many
from shammah_chassis.releases import Release
from shammah_chassis.scopes import Caller

from shammah_gateway.checks import check_categories, check_range
from shammah_gateway.intervals import clopper_pearson
from shammah_gateway.jobs import Progress
from shammah_gateway.learning_curve import (
    MAX_ROWS,
    CategoryState,
    expected_accuracy,
    expected_gain,
    recommended_rows,
)
from shammah_gateway.tools.context import ToolContext, run_job, show_job
from shammah_gateway.tools.query import require_champion
from shammah_gateway.tools.schemas import AnalyzeInput, AnalyzeResult, CategoryAnalysis
from shammah_gateway.values import Answer, Query

DEFAULT_COUNT = 100
MIN_COUNT = 50
MAX_COUNT = 200
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


async def analyze_model(context: ToolContext, caller: Caller, asked: AnalyzeInput) -> AnalyzeResult:
    """Test the champion on dev examples.

    Raises:
        InvalidInputError: test_count outside 50 to 200.
        NotFoundError: an unknown category (the message lists the known ones).
        PreconditionError: there are no dev examples yet.
        UnavailableError: no release serves, or the trainer is away.
    """
    if asked.job:
        return await show_job(context, caller, asked.job, AnalyzeResult)
    count = asked.test_count or DEFAULT_COUNT
    check_range("test_count", count, MIN_COUNT, MAX_COUNT)
    release = require_champion(context)
    rows = {row.category: row for row in (await context.trainer.status()).categories}
    check_categories(asked.categories, rows)

    async def work(progress: Progress) -> dict[str, Any]:
        progress.report(0.0, "drawing examples")
        examples = await context.trainer.sample(count, asked.categories, SEED)
        if not examples:
            raise PreconditionError("there are no dev examples yet: teach some first")
        tested = await try_examples(context, release, examples, caller.name, progress)
        return (await summarise(context, release, tested, rows)).model_dump(exclude={"job"})

    return await run_job(context, caller, "analyze_model", work, AnalyzeResult)


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
) -> AnalyzeResult:
    """Return the analysis of tested examples."""
    if not tested:
        raise PreconditionError("none of the drawn examples could be graded")
    first = await _first_accuracies(context)
    by_category: dict[str, list[Tested]] = {}
    for entry in tested:
        by_category.setdefault(entry.category, []).append(entry)
    shares = _shares(context, by_category, len(tested))
    states = {
        name: CategoryState(
            accuracy=sum(entry.good for entry in entries) / len(entries),
            first=first.get(name, 0.0),
            trained_rows=max(0, rows[name].train - rows[name].new_train) if name in rows else 0,
            share=shares[name],
        )
        for name, entries in by_category.items()
    }
    analyses = [_analyse(name, by_category[name], states[name], release) for name in sorted(by_category)]
    good = sum(entry.good for entry in tested)
    low, high = clopper_pearson(good, len(tested))
    ranked = sorted(analyses, key=lambda entry: (-entry.expected_gain, entry.category))
    improvement = sum(
        states[entry.category].share
        * (expected_accuracy(states[entry.category], entry.recommended_examples) - entry.accuracy)
        for entry in analyses
    )
    return AnalyzeResult(
        local_success=good / len(tested),
        local_success_low=low,
        local_success_high=high,
        tested=len(tested),
        categories=analyses,
        weak_areas=[entry.category for entry in ranked if entry.recommended_examples > 0],
        estimated_improvement=100.0 * improvement,
        release=release.id,
    )


def _analyse(name: str, entries: Sequence[Tested], state: CategoryState, release: Release) -> CategoryAnalysis:
    good = sum(entry.good for entry in entries)
    low, high = clopper_pearson(good, len(entries))
    policy = release.categories.get(name)
    return CategoryAnalysis(
        category=name,
        tested=len(entries),
        accuracy=state.accuracy,
        accuracy_low=low,
        accuracy_high=high,
        local_good=sum(entry.local and entry.good for entry in entries),
        local_bad=sum(entry.local and not entry.good for entry in entries),
        forwarded_though_good=sum(entry.good and not entry.local for entry in entries),
        certified=policy is not None and policy.threshold is not None,
        rows_missing=policy.rows_missing if policy else 0,
        expected_gain=expected_gain(state, MAX_ROWS),
        recommended_examples=recommended_rows(state),
    )


def _shares(context: ToolContext, by_category: Mapping[str, Sequence[Tested]], total: int) -> dict[str, float]:
    """Return each category's share: of the traffic, or of the drawn examples while there is little traffic."""
    seen = {name: context.monitor.categories[name] for name in by_category}
    if sum(seen.values()) >= ENOUGH_QUERIES:
        return {name: count / sum(seen.values()) for name, count in seen.items()}
    return {name: len(entries) / total for name, entries in by_category.items()}


async def _first_accuracies(context: ToolContext) -> dict[str, float]:
    """Return the accuracy of each category in the oldest exam that is still kept: what it was before it was taught."""
    first: dict[str, float] = {}
    for release in reversed(await context.releases.list_releases()):
        for name, policy in release.categories.items():
            first.setdefault(name, _before(release, name, policy.accuracy))
    return first


def _before(release: Release, category: str, accuracy: float) -> float:
    """Return the accuracy before the round of a release, as its gate report says; without one, half of it.

    Half leaves room for what teaching did, without claiming that it did everything.
    """
    entry = release.report.get("categories", {}).get(category, {})
    return float(entry.get("accuracy_before", accuracy / 2.0))
