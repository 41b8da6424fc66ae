"""The one desk behind every door: queries go to the cascade, and what came of them is counted, saved and remembered.

It knows no transport.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shammah_chassis.errors import InvalidInputError, NotFoundError, PreconditionError, ShammahError

from shammah_gateway.cascade import NO_TEACHER, Cascade, Decision
from shammah_gateway.consent.counts import TrafficCounts
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.monitor import Monitor
from shammah_gateway.values import Answer, Query


class Savings(Protocol):
    """Where the tokens of local answers are booked as saved."""

    def book_saved(self, *, input_tokens: int, output_tokens: int, caller: str = "") -> object:
        """Book a local answer."""
        ...


@dataclass(frozen=True, slots=True)
class FrontDesk:
    """Takes queries from the doors. `savings` None: nobody books them; `counts` None: nobody counts by caller."""

    cascade: Cascade
    monitor: Monitor
    feedback: FeedbackDesk
    savings: Savings | None = None
    counts: TrafficCounts | None = None

    async def ask(self, query: Query) -> Answer:
        """Answer a query for a door: counted, and remembered for feedback. Raises as `Cascade.ask`."""
        try:
            answer = await self.cascade.ask(query)
        except (InvalidInputError, PreconditionError, NotFoundError):
            raise
        except ShammahError:
            self.monitor.add_failure()
            raise
        self._keep(query, answer)
        return answer

    async def decide(self, query: Query) -> Decision:
        """Say who answers; a local answer is counted and remembered at once. Raises as `Cascade.decide`.

        Who gets a decision without a local answer forwards the query, and then calls `finish` or `fail`.
        """
        try:
            decision = await self.cascade.decide(query)
        except (InvalidInputError, PreconditionError, NotFoundError):
            raise
        except ShammahError:
            self.monitor.add_failure()
            raise
        if decision.local is not None:
            self._keep(query, decision.local)
        return decision

    async def finish(
        self,
        decision: Decision,
        *,
        text: str,
        model: str,
        stop_reason: str | None,
        input_tokens: int = 0,
        output_tokens: int = 0,
    ) -> Answer:
        """Take the answer a door forwarded itself: learned from (`Cascade.learn_forwarded`), counted, remembered."""
        answer = await self.cascade.learn_forwarded(
            decision,
            text=text,
            model=model,
            stop_reason=stop_reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        self._keep(decision.query, answer)
        return answer

    async def replace(self, decision: Decision, failure: ShammahError, *, by_others: bool) -> Answer:
        """Return an answer in the place of one that a door could not get by bytes.

        `by_others`: of the teachers that take no bytes, if they give one; else a labelled local one, where allowed.

        Raises:
            As `Cascade.degrade`.
        """
        try:
            answer = await self._replace(decision, failure, by_others=by_others)
        except ShammahError:
            self.monitor.add_failure()
            raise
        self._keep(decision.query, answer)
        return answer

    async def _replace(self, decision: Decision, failure: ShammahError, *, by_others: bool) -> Answer:
        if by_others:
            try:
                return await self.cascade.ask_teacher(decision)
            except NO_TEACHER as error:
                failure = error
        return await self.cascade.degrade(decision, failure)

    def stay_with_teacher(self, query: Query) -> None:
        """Keep the conversation of a query that is forwarded without a decision with the teacher."""
        self.cascade.stay_with_teacher(query)

    def pass_over(self, reason: str) -> None:
        """Count a query that a door forwarded without a decision: it is none that the student could be asked."""
        self.monitor.queries += 1
        self.monitor.forwarded += 1
        self.monitor.reasons[reason] += 1

    def fail(self) -> None:
        """Count a forwarded query that got an error."""
        self.monitor.add_failure()

    def _keep(self, query: Query, answer: Answer) -> None:
        self.monitor.add_answer(answer, traffic=not query.no_learn)
        if self.counts is not None:
            self.counts.add(query.user, f"answered {answer.route}")
        if not query.no_learn and answer.text.strip():
            self.feedback.remember(query, answer)
        # A degraded answer is none that the teacher would have given as well: nothing is saved by it.
        if self.savings is not None and answer.route == "local":
            self.savings.book_saved(
                caller=query.user, input_tokens=answer.input_tokens, output_tokens=answer.output_tokens
            )
