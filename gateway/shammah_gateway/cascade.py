"""The cascade: one query in, one answer out, by the student where that keeps the promise, else by the teacher.

Plain values in and out; every door uses this one. `ask` does it all; a door that passes a teacher's bytes through
calls `decide`, forwards by itself and then `learn_forwarded` (or `degrade`). The author is decided before anything is
returned. What is learned from an answer is `learning`, how the roles are reached is `roles`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from shammah_chassis.errors import (
    BudgetError,
    PreconditionError,
    ShammahError,
    StorageFullError,
    TeacherError,
    UnavailableError,
)
from shammah_chassis.releases import Release
from shammah_chassis.ulid import new_ulid

from shammah_gateway.checks import check_alpha, check_query
from shammah_gateway.coins import Toss
from shammah_gateway.conversations import Conversations
from shammah_gateway.learning import Learner
from shammah_gateway.money.caps import AtCap
from shammah_gateway.ports import Releases
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.student import Student, Trial
from shammah_gateway.teachers.base import Teacher, TeacherAnswer
from shammah_gateway.values import Answer, Query, Route, Versions

# The stop reasons of a whole answer, in the words of the Messages API and of the OpenAI shape. An answer that ended in
# another way (cut, declined, a tool call, a caller's stop sequence, not at all) shows nobody what a good answer is.
WHOLE = frozenset({"end_turn", "stop"})
# A teacher that can't be asked now, for whatever reason.
NO_TEACHER = (TeacherError, BudgetError, StorageFullError, UnavailableError)
# The reasons of a trial whose quality was compared with a threshold.
_COMPARED = ("quality", "low_quality")
# Of these, what another teacher may mend: no cap and no full disk.
PASSING = (TeacherError, UnavailableError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who answers one query: `local` is the answer already; None means that the teacher must be asked.

    `trial` is what the student did (reason, category, confidence and versions are in it), `release` the one that
    decided, `toss` the coins, `started` on the monotonic clock.
    """

    query: Query
    query_id: str
    started: float
    trial: Trial
    release: Release | None
    toss: Toss
    local: Answer | None = None


class Cascade:
    """Answers queries (DESIGN "The life of a query").

    `teacher` None means that nobody can be asked. `teacher_max_tokens` is the limit of a teacher's answer where the
    caller gives none. With `at_cap` "degrade" a spent budget gives a labelled local answer, whether the caller allowed
    one or not; with "refuse" it is an error as any other.
    """

    def __init__(
        self,
        *,
        student: Student,
        releases: Releases,
        teacher: Teacher | None,
        learner: Learner,
        teacher_max_tokens: int = 1024,
        at_cap: AtCap = "refuse",
        conversations: Conversations | None = None,
        watch: PromiseWatch | None = None,
    ) -> None:
        self.student = student
        self._releases = releases
        self._teacher = teacher
        self._learner = learner
        self._teacher_max_tokens = teacher_max_tokens
        self._at_cap = at_cap
        self._conversations = conversations or Conversations()
        self._watch = watch

    async def ask(self, query: Query) -> Answer:
        """Answer a query.

        Raises:
            As `decide`; and as `degrade` when it must be forwarded and the teacher gave no usable answer: no example is
            made then.
        """
        decision = await self.decide(query)
        if decision.local is not None:
            return decision.local
        try:
            told = await self._ask_teacher(query)
        except NO_TEACHER as failure:
            return await self.degrade(decision, failure)
        return await self._learn(decision, told)

    async def decide(self, query: Query) -> Decision:
        """Say who answers, and answer where that is the student.

        An audit of a local answer is started. A forwarded query leaves nothing yet but its conversation's route: the
        caller forwards it and says how that went by `learn_forwarded`, or by `degrade` when it could not be forwarded.

        Raises:
            InvalidInputError, TooLongError: as `check_query`; or `query.alpha` is above that of the release.
            UnknownReleaseError: `query.release` is in no store.
            PreconditionError: `local_only`, and the local answer is not good enough.
            UnavailableError: `local_only` with `allow_degraded`, and the student gives no answer at all.
        """
        check_query(query)
        started = time.monotonic()
        query_id = new_ulid()
        # Read once: whatever is promoted meanwhile, this query is served wholly by one release.
        release = await self._releases.find(query.release) if query.release else self._releases.champion()
        if release is not None:
            check_alpha(query.alpha, release)
        toss = self._learner.toss(query_id)
        trial = await self._try(query, release)
        if release is not None and not query.release and not query.no_learn:
            self._note(trial, release)
        decision = Decision(query=query, query_id=query_id, started=started, trial=trial, release=release, toss=toss)
        if trial.serve and trial.attempt is not None:
            answer = _answer_locally(decision, trial, "local")
            self._learner.after_local(query, answer, toss)
            return replace(decision, local=answer)
        if query.local_only:
            return replace(decision, local=await self._answer_only_locally(decision))
        self._conversations.note_forwarded(query)
        return decision

    def _note(self, trial: Trial, release: Release) -> None:
        """Show the watch what the champion's router and validator said."""
        if self._watch is None or not trial.versions.router:
            return
        self._watch.note_query(release, trial.category)
        if trial.judged is not None and trial.reason in _COMPARED:
            self._watch.note_score(release, trial.category, trial.judged.quality, served=trial.serve)

    async def ask_teacher(self, decision: Decision) -> Answer:
        """Ask the teachers for an answer that a door could not get by bytes, and learn from it.

        Raises:
            As `Teacher.answer`: the caller may then still `degrade`.
        """
        return await self._learn(decision, await self._ask_teacher(decision.query))

    def stay_with_teacher(self, query: Query) -> None:
        """Keep the conversation of a query with the teacher, where a door forwards it without asking `decide`."""
        self._conversations.note_forwarded(query)

    async def learn_forwarded(
        self,
        decision: Decision,
        *,
        text: str,
        model: str,
        stop_reason: str | None,
        input_tokens: int = 0,
        output_tokens: int = 0,
    ) -> Answer:
        """Learn from an answer whose bytes a door has passed through, as from one that `ask` got.

        `text` is all the text of the answer, `stop_reason` None when it did not come to its end (the caller hung up,
        the teacher's stream broke). An answer that is not whole becomes no example. Nothing about the answer can fail
        here. Returns the answer as the monitor and the feedback desk want it.
        """
        told = TeacherAnswer(text, model, stop_reason or "")
        answer = await self._learn(decision, told)
        return replace(answer, input_tokens=input_tokens, output_tokens=output_tokens)

    async def degrade(self, decision: Decision, failure: ShammahError) -> Answer:
        """Return a labelled local answer in the place of a teacher's that failed, where that is allowed.

        Raises:
            `failure` where none is allowed, or when it is a spent budget and the student gives no answer either.
            UnavailableError: neither the teacher nor the student can answer.
        """
        at_cap = isinstance(failure, BudgetError) and self._at_cap == "degrade"
        if not decision.query.allow_degraded and not at_cap:
            raise failure
        reason = "budget" if isinstance(failure, BudgetError) else decision.trial.reason
        try:
            trial = await self._attempt(decision)
        except UnavailableError as error:
            raise failure if isinstance(failure, BudgetError) else error from failure
        return _answer_locally(decision, replace(trial, reason=reason), "degraded")

    async def _try(self, query: Query, release: Release | None) -> Trial:
        """Let the student try, unless it is known beforehand that the teacher answers."""
        if release is None:
            return Trial()
        reason = query.forward_reason or ("conversation" if self._conversations.is_with_teacher(query) else "")
        if query.local_only or not reason:
            return await self.student.try_query(query, release, run_anyway=query.want_attempt)
        if not query.want_attempt:
            return Trial(reason=reason, versions=Versions(release=release.id), skipped=True)
        trial = await self.student.try_query(query, release, run_anyway=True)
        return replace(trial, serve=False, reason=reason)

    async def _ask_teacher(self, query: Query) -> TeacherAnswer:
        if self._teacher is None:
            raise UnavailableError("this query must be forwarded and no teacher is set up")
        return await self._teacher.answer(
            query.messages, query.max_tokens or self._teacher_max_tokens, purpose="answer", caller=query.user
        )

    async def _learn(self, decision: Decision, told: TeacherAnswer) -> Answer:
        """Make the answer of what the teacher told, and the example of it."""
        answer = _answer_of_teacher(decision, told)
        if told.stop_reason in WHOLE and told.text.strip():
            await self._learner.after_teacher(
                decision.query, answer, told, decision.trial, decision.toss, decision.release
            )
        return answer

    async def _answer_only_locally(self, decision: Decision) -> Answer:
        """Return the labelled local answer of a query that may never be forwarded, if the caller allowed one."""
        if not decision.query.allow_degraded:
            raise PreconditionError(
                f"the local answer is not good enough ({decision.trial.reason}) and the teacher may not be asked; "
                "allow_degraded would return it with a label"
            )
        trial = await self._attempt(decision)
        return _answer_locally(decision, replace(trial, reason="local_only"), "degraded")

    async def _attempt(self, decision: Decision) -> Trial:
        """Return a trial with the student's attempt, made now if it was not before; UnavailableError without one."""
        trial = decision.trial
        if trial.attempt is None and decision.release is not None:
            trial = await self.student.try_query(decision.query, decision.release, run_anyway=True)
        if trial.attempt is None:
            raise UnavailableError(f"neither the teacher nor the student can answer ({trial.reason})")
        return trial


def _answer_locally(decision: Decision, trial: Trial, route: Route) -> Answer:
    """Return the student's attempt as the answer; `trial` has one."""
    attempt, counts = trial.attempt, trial.statistics or {}
    if attempt is None:
        raise UnavailableError(f"the student gave no answer ({trial.reason})")
    return Answer(
        query_id=decision.query_id,
        text=attempt.text,
        route=route,
        reason=trial.reason,
        category=trial.category,
        confidence=trial.confidence,
        versions=trial.versions,
        latency_seconds=time.monotonic() - decision.started,
        attempt=attempt if decision.query.want_attempt else None,
        input_tokens=int(counts.get("prompt_tokens", 0)),
        output_tokens=int(counts.get("length", 0)),
        stop_reason="max_tokens" if attempt.finish == "length" else "end_turn",
    )


def _answer_of_teacher(decision: Decision, told: TeacherAnswer) -> Answer:
    trial = decision.trial
    return Answer(
        query_id=decision.query_id,
        text=told.text,
        route="teacher",
        reason=trial.reason,
        category=trial.category,
        confidence=trial.confidence,
        versions=trial.versions if decision.release else Versions(),
        latency_seconds=time.monotonic() - decision.started,
        attempt=trial.attempt if decision.query.want_attempt else None,
        teacher_model=told.model,
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        stop_reason=told.stop_reason,
        passed_over=told.passed_over,
    )
