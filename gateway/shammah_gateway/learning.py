"""What is learned from an answer: examples of teacher answers, audits of local ones, exploration of forwarded ones.

Nothing here delays an answer: audits and explorations run in the background, bounded; when full, a coin's side is
dropped and counted. A teacher's answer is an example all the same, explored or not. It knows neither transport nor
training.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.examples import MAX_RESPONSE_CHARS, Example, Provenance, default_grader
from shammah_chassis.fields import check_text
from shammah_chassis.grading import grade
from shammah_chassis.releases import Release
from shammah_chassis.tasks import stop_tasks

from shammah_gateway.coins import Coins, Toss
from shammah_gateway.consent.consent import Consent
from shammah_gateway.monitor import Monitor
from shammah_gateway.ports import ExampleSink
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.student import Student, Trial
from shammah_gateway.teachers.base import Teacher, TeacherAnswer
from shammah_gateway.values import Answer, Attempt, Query

# An example needs a category; this one stands for "nobody said".
UNCATEGORISED = "uncategorised"
MAX_BACKGROUND = 64
# Why a query is forwarded of a category that the student answers others of.
_WHERE_SERVED = frozenset({"router", "low_quality"})
_log = logging.getLogger(__name__)


class Learner:
    """Makes examples out of answers, and grades the sampled ones."""

    def __init__(
        self,
        *,
        student: Student,
        teacher: Teacher | None,
        sink: ExampleSink,
        coins: Coins,
        monitor: Monitor,
        teacher_max_tokens: int = 1024,
        watch: PromiseWatch | None = None,
        consent: Consent | None = None,
    ) -> None:
        self._consent = consent
        self._student = student
        self._teacher = teacher
        self._sink = sink
        self._coins = coins
        self.monitor = monitor
        self._teacher_max_tokens = teacher_max_tokens
        self._watch = watch
        self._running: set[asyncio.Task[None]] = set()

    @property
    def _name(self) -> str:
        return self._teacher.name if self._teacher else ""

    def toss(self, query_id: str) -> Toss:
        """Flip the coins of a query; must be called before it is routed."""
        return self._coins.toss(query_id)

    def after_local(self, query: Query, answer: Answer, toss: Toss) -> None:
        """Audit a local answer in the background, if its coin fell so."""
        if query.no_learn or query.local_only or not query.may_audit or not toss.audit or self._teacher is None:
            return
        self._start(self._audit(query, answer, self._teacher), "audit")

    async def after_teacher(
        self, query: Query, answer: Answer, told: TeacherAnswer, trial: Trial, toss: Toss, release: Release | None
    ) -> None:
        """Record a teacher's answer; with the explore coin, let the student try first, in the background.

        Raises nothing: whatever fault ends this, the answer is there, and somebody waits for it.
        """
        if query.no_learn:
            return
        try:
            await self._take_told(query, answer, told, trial, toss, release)
        except Exception:
            self.monitor.lost_examples += 1
            _log.exception("nothing is learned from an answer")

    async def _take_told(
        self, query: Query, answer: Answer, told: TeacherAnswer, trial: Trial, toss: Toss, release: Release | None
    ) -> None:
        if not self._can_hold(told.text):
            return
        if (
            toss.explore
            and release is not None
            and self._start(self._explore(query, answer, told, trial, release), "explore")
        ):
            return
        if (
            trial.skipped
            and not query.category
            and release is not None
            and self._start(self._categorise(query, answer, told, trial, release), "categorise")
        ):
            return
        await self._record_told(query, answer, told, trial, release)

    async def wait_idle(self, timeout: float) -> None:
        """Wait until no audit or exploration runs; what runs after `timeout` seconds is given up."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=timeout)
        await stop_tasks(late)

    def _can_hold(self, text: str) -> bool:
        """Say whether a teacher's answer can be an example; one that can't (half of a surrogate pair) is counted."""
        try:
            check_text(text, "response")
        except InvalidInputError as error:
            problem = error.message
        else:
            if len(text) <= MAX_RESPONSE_CHARS:
                return True
            problem = f"{len(text)} characters are too many"
        self.monitor.lost_examples += 1
        _log.warning("an answer is no example: %s", problem)
        return False

    async def _audit(self, query: Query, answer: Answer, teacher: Teacher) -> None:
        told = await teacher.answer(query.messages, query.max_tokens or self._teacher_max_tokens, purpose="audit")
        if not self._can_hold(told.text):
            return
        trial = Trial(category=answer.category)
        example = make_example(
            query,
            answer,
            told,
            origin="audit",
            teacher=self._name,
            trial=replace(trial, attempt=Attempt(answer.text, answer.confidence, "stop")),
            propensity=self._coins.audit_rate,
            fair=False,
        )
        try:
            # The teacher saw the query masked: so is what is compared with its answer.
            attempt = answer.text if self._consent is None else await self._consent.mask_text(answer.text)
            verdict = await asyncio.to_thread(grade, attempt, example)
            self.monitor.add_audit(answer.category, verdict.good)
            if self._watch is not None:
                self._watch.note_audit(answer.versions.release, answer.category, verdict.good)
        finally:
            # As in `_explore`: the verdict may be lost, the answer was paid for.
            await self._record(example)

    async def _categorise(
        self, query: Query, answer: Answer, told: TeacherAnswer, trial: Trial, release: Release
    ) -> None:
        """Record a teacher's answer to a query that no router has seen, under the category that it sees now."""
        try:
            trial = replace(trial, category=await self._student.find_category(query, release))
            self.monitor.add_category(trial.category)
        finally:
            # A stop that cuts this short loses the category, not the answer that was paid for.
            await self._record_told(query, answer, told, trial, release)

    async def _explore(self, query: Query, answer: Answer, told: TeacherAnswer, trial: Trial, release: Release) -> None:
        if trial.attempt is None:
            try:
                skipped = trial.skipped
                trial = await self._student.try_query(query, release, run_anyway=True)
                if skipped:
                    self.monitor.add_category(trial.category)
            except asyncio.CancelledError:
                # The gateway stops: the student's side is given up, the teacher's answer was paid for.
                await self._record_told(query, answer, told, trial, release)
                raise
        example = make_example(
            query,
            answer,
            told,
            origin="explore",
            teacher=self._name,
            trial=trial,
            propensity=self._coins.explore_rate,
            fair=self._is_fair(query, told, trial, release),
        )
        try:
            if trial.attempt is not None:
                verdict = await asyncio.to_thread(grade, trial.attempt.text, example)
                self.monitor.add_exploration(example.category, verdict.good)
        finally:
            # A stop that cuts the grading short loses the verdict, not the answer that was paid for.
            await self._record(example)

    def _is_fair(self, query: Query, told: TeacherAnswer, trial: Trial, release: Release | None) -> bool:
        """Whether the forwarded queries of this category are all that are asked: none is answered locally.

        Neither now nor when this one was decided, by the category of whoever names one; of all, where no router saw it.
        A query for a release of its own choice is none of the traffic that the champion gets.
        """
        if release is None:
            return True
        if query.release or trial.reason in _WHERE_SERVED:
            return False
        find = self._watch.threshold if self._watch is not None else Release.threshold_of
        known = told.known.category if told.known else ""
        names = {query.category, trial.category, known} if trial.category else set(release.categories)
        return all(find(release, name) is None for name in names)

    async def _record_told(
        self, query: Query, answer: Answer, told: TeacherAnswer, trial: Trial, release: Release | None
    ) -> None:
        fair = self._is_fair(query, told, trial, release)
        try:
            example = make_example(query, answer, told, origin="teacher", trial=trial, teacher=self._name, fair=fair)
        except ShammahError as error:
            # Texts of strangers: what can't be kept (half of a surrogate pair, say) can be answered all the same.
            self.monitor.lost_examples += 1
            _log.warning("an answer is no example: %s", error.message)
            return
        await self._record(example)

    async def _record(self, example: Example) -> None:
        try:
            await self._sink.record(example.provenance.origin, [example])
        except (ShammahError, OSError) as error:
            # The user has an answer; that nothing can be learned now is for status, not for the user.
            self.monitor.lost_examples += 1
            _log.error("an example could not be kept: %s", error)

    def _start(self, work: Coroutine[Any, Any, None], kind: str) -> bool:
        """Run in the background; returns False when too much runs there already."""
        if len(self._running) >= MAX_BACKGROUND:
            work.close()
            self.monitor.dropped += 1
            return False
        task = asyncio.create_task(_log_failure(work, kind), name=kind)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True


async def _log_failure(work: Coroutine[Any, Any, None], kind: str) -> None:
    try:
        await work
    except ShammahError as error:
        _log.warning("%s left out: %s: %s", kind, error.code, error.message)


def make_example(
    query: Query,
    answer: Answer,
    told: TeacherAnswer,
    *,
    origin: str,
    trial: Trial,
    teacher: str,
    propensity: float = 1.0,
    fair: bool = True,
) -> Example:
    """Return the example of a teacher's answer to a query; what is no `fair` sample of the traffic only trains.

    Category and grader are the caller's, else those of the recorded row, else the router's and the response's form.
    """
    provenance = Provenance(
        origin=origin,
        teacher=told.teacher or teacher,
        teacher_model=told.model,
        source="gateway",
        propensity=propensity,
        licence=told.known.provenance.licence if told.known else "",
    )
    tried = trial.attempt.text if trial.attempt else ""
    common: dict[str, Any] = {
        "provenance": provenance,
        "student_attempt": tried,
        "release": answer.versions.release,
        "request": answer.query_id,
        "part_hint": "" if fair else "train",
    }
    if told.known is not None:
        category = query.category or told.known.category
        return replace(told.known, query=query.messages, category=category, **common)
    return Example(
        query=query.messages,
        response=told.text,
        category=query.category or trial.category or UNCATEGORISED,
        grader=query.grader or default_grader(told.text),
        **common,
    )
