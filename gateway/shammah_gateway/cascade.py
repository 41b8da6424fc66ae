"""The cascade: one query in, one answer out, by the student where that keeps the promise, else by the teacher.

Plain values in and out; every door uses this one. The author is decided before anything is returned. What is learned
from an answer is `learning`, how the roles are reached is `roles`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from shammah_chassis.errors import BudgetError, PreconditionError, StorageFullError, TeacherError, UnavailableError
from shammah_chassis.releases import Release
from shammah_chassis.ulid import new_ulid

from shammah_gateway.checks import check_query
from shammah_gateway.learning import Learner
from shammah_gateway.ports import Releases
from shammah_gateway.student import Student, Trial
from shammah_gateway.teachers.base import Teacher, TeacherAnswer
from shammah_gateway.values import Answer, Query, Route, Versions


@dataclass(frozen=True, slots=True)
class _Job:
    """One query on its way."""

    query: Query
    query_id: str
    started: float
    trial: Trial
    release: Release | None


class Cascade:
    """Answers queries (DESIGN "The life of a query").

    `teacher` None means that nobody can be asked. `teacher_max_tokens` is the limit of a teacher's answer where the
    caller gives none.
    """

    def __init__(
        self,
        *,
        student: Student,
        releases: Releases,
        teacher: Teacher | None,
        learner: Learner,
        teacher_max_tokens: int = 1024,
    ) -> None:
        self.student = student
        self._releases = releases
        self._teacher = teacher
        self._learner = learner
        self._teacher_max_tokens = teacher_max_tokens

    async def ask(self, query: Query) -> Answer:
        """Answer a query.

        Raises:
            InvalidInputError, TooLongError: as `check_query`.
            UnknownReleaseError: `query.release` is in no store.
            PreconditionError: `local_only`, and the local answer is not good enough.
            UnavailableError: it must be forwarded and there is no teacher.
            TeacherError, BudgetError: the teacher gave no usable answer; no example is made.
            StorageFullError: the disk is full, and a budget of teacher calls could not be kept.
        """
        check_query(query)
        started = time.monotonic()
        query_id = new_ulid()
        # Read once: whatever is promoted meanwhile, this query is served wholly by one release.
        release = await self._releases.find(query.release) if query.release else self._releases.champion()
        toss = self._learner.toss(query_id)
        trial = Trial()
        if release is not None:
            trial = await self.student.try_query(query, release, run_anyway=query.want_attempt)
        job = _Job(query, query_id, started, trial, release)
        if trial.serve and trial.attempt is not None:
            answer = _answer(job, trial.attempt.text, "local")
            self._learner.after_local(query, answer, toss)
            return answer
        if query.local_only:
            return await self._answer_degraded(job, reason="local_only")
        try:
            told = await self._ask_teacher(query)
        except (TeacherError, BudgetError, StorageFullError, UnavailableError):
            if not query.allow_degraded:
                raise
            return await self._answer_degraded(job, reason=trial.reason)
        answer = _answer(job, told.text, "teacher", teacher_model=told.model)
        await self._learner.after_teacher(query, answer, told, trial, toss, release)
        return answer

    async def _ask_teacher(self, query: Query) -> TeacherAnswer:
        if self._teacher is None:
            raise UnavailableError("this query must be forwarded and no teacher is set up")
        return await self._teacher.answer(
            query.messages, query.max_tokens or self._teacher_max_tokens, purpose="answer"
        )

    async def _answer_degraded(self, job: _Job, *, reason: str) -> Answer:
        """Return a labelled local answer that keeps no promise, if the caller allowed one."""
        if not job.query.allow_degraded:
            raise PreconditionError(
                f"the local answer is not good enough ({job.trial.reason}) and the teacher may not be asked; "
                "allow_degraded would return it with a label"
            )
        trial = job.trial
        if trial.attempt is None and job.release is not None:
            trial = await self.student.try_query(job.query, job.release, run_anyway=True)
        if trial.attempt is None:
            raise UnavailableError(f"neither the teacher nor the student can answer ({trial.reason})")
        return _answer(replace(job, trial=replace(trial, reason=reason)), trial.attempt.text, "degraded")


def _answer(job: _Job, text: str, route: Route, *, teacher_model: str = "") -> Answer:
    trial = job.trial
    return Answer(
        query_id=job.query_id,
        text=text,
        route=route,
        reason=trial.reason,
        category=trial.category,
        confidence=trial.confidence,
        versions=trial.versions if job.release else Versions(),
        latency_seconds=time.monotonic() - job.started,
        attempt=trial.attempt if job.query.want_attempt else None,
        teacher_model=teacher_model,
    )
