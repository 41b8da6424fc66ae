"""Feedback of users: ratings and corrections of answers that were served, as weighted examples.

It remembers the last answers in memory; it does not know what is trained from a rating.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shammah_chassis.errors import BudgetError, InvalidInputError, NotFoundError, ShammahError, TooLongError
from shammah_chassis.examples import MAX_RESPONSE_CHARS, Example, Provenance, default_grader

from shammah_gateway.learning import UNCATEGORISED
from shammah_gateway.ports import ExampleSink
from shammah_gateway.values import Answer, Query

# DESIGN "The life of an example": a correction, a bad rating, a good one.
WEIGHT_CORRECTION = 10.0
WEIGHT_BAD = 3.0
WEIGHT_GOOD = 1.0
REMEMBERED = 10_000
# Long conversations count by their length: so many answers of the longest kind would be gigabytes.
REMEMBERED_CHARS = 64_000_000
DAY_SECONDS = 86_400
Effect = Literal["example", "judge_only", "duplicate"]


@dataclass(frozen=True, slots=True)
class Served:
    """An answer that can still be rated."""

    query: Query
    answer: Answer

    @property
    def chars(self) -> int:
        """Characters of the query, the answer and the student's attempt."""
        attempt = self.answer.attempt
        turns = sum(len(turn.content) for turn in self.query.messages)
        return turns + len(self.answer.text) + (len(attempt.text) if attempt is not None else 0)


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """What a rating became, and the weight it has."""

    effect: Effect
    weight: float


class FeedbackDesk:
    """Takes ratings of the last 10,000 answers, of fewer where they are long; a user's weight a day (UTC) is capped."""

    def __init__(self, sink: ExampleSink, *, daily_weight: float, now: Callable[[], float] = time.time) -> None:
        self._sink = sink
        self._daily_weight = daily_weight
        self._now = now
        self._served: OrderedDict[str, Served] = OrderedDict()
        self._chars = 0
        self._given: dict[str, set[tuple[int, str]]] = {}
        self._spent: dict[tuple[str, int], float] = {}

    def remember(self, query: Query, answer: Answer) -> None:
        """Keep an answer so that it can be rated; the oldest is forgotten."""
        self._drop(answer.query_id)
        served = self._served[answer.query_id] = Served(query, answer)
        self._chars += served.chars
        while len(self._served) > REMEMBERED or self._chars > REMEMBERED_CHARS:
            oldest = next(iter(self._served))
            self._drop(oldest)
            self._given.pop(oldest, None)

    def forget(self, query_id: str) -> bool:
        """Forget an answer; says whether it was known."""
        self._given.pop(query_id, None)
        return self._drop(query_id)

    def _drop(self, query_id: str) -> bool:
        served = self._served.pop(query_id, None)
        self._chars -= served.chars if served is not None else 0
        return served is not None

    async def rate(self, user: str, query_id: str, rating: int, correction: str) -> FeedbackResult:
        """Take a rating (1 good, -1 bad), with the right answer if the user gives one.

        Raises:
            InvalidInputError: another rating, or a good one with a correction.
            NotFoundError: the answer is not known (any more), or was given to another user.
            BudgetError: the user's weight for today is spent.
        """
        _check_rating(rating, correction)
        served = self._served.get(query_id)
        if served is None or served.query.user != user:
            raise NotFoundError(
                f"there is no answer {query_id!r} of yours among the last {REMEMBERED} (fewer, if long)"
            )
        given = self._given.setdefault(query_id, set())
        if (rating, correction) in given:
            return FeedbackResult("duplicate", 0.0)
        full = WEIGHT_CORRECTION if correction else WEIGHT_BAD if rating < 0 else WEIGHT_GOOD
        weight = min(full, self._left(user))
        if weight <= 0:
            raise BudgetError(f"your feedback of today has reached its limit (weight {self._daily_weight:g})")
        given.add((rating, correction))
        self._spend(user, weight)
        try:
            await self._sink.record("feedback", [_make_example(served, rating, correction, weight)])
        except ShammahError:
            given.discard((rating, correction))
            self._spend(user, -weight)
            raise
        trains = bool(correction) or (rating > 0 and served.answer.route == "teacher")
        return FeedbackResult("example" if trains else "judge_only", weight)

    def _left(self, user: str) -> float:
        return self._daily_weight - self._spent.get((user, self._day()), 0.0)

    def _spend(self, user: str, weight: float) -> None:
        today = self._day()
        self._spent = {key: spent for key, spent in self._spent.items() if key[1] == today}
        self._spent[user, today] = self._spent.get((user, today), 0.0) + weight

    def _day(self) -> int:
        return int(self._now() // DAY_SECONDS)


def _check_rating(rating: int, correction: str) -> None:
    if rating not in (-1, 1):
        raise InvalidInputError(f"rating is {rating}; allowed: 1 (good), -1 (bad)")
    if correction and rating > 0:
        raise InvalidInputError("a correction says that the answer was bad: send rating -1 with it")
    if correction and not correction.strip():
        raise InvalidInputError("the correction is empty; leave it out, or give the right answer")
    if len(correction) > MAX_RESPONSE_CHARS:
        raise TooLongError(f"the correction has {len(correction)} characters; at most {MAX_RESPONSE_CHARS} are allowed")


def _make_example(served: Served, rating: int, correction: str, weight: float) -> Example:
    """Return the example of a rating.

    A corrected one is to be learned. A bad one without a correction has no response, so no generator can learn it. The
    student's own text stands in `student_attempt`, where only the judge looks.
    """
    query, answer = served.query, served.answer
    local = answer.route != "teacher"
    response = correction or (answer.text if rating > 0 else "")
    grader = (query.grader or default_grader(correction)) if correction else ""
    origin = "user_correction" if correction else "feedback"
    return Example(
        query=query.messages,
        response=response,
        category=query.category or answer.category or UNCATEGORISED,
        grader=grader,
        provenance=Provenance(origin=origin, source="feedback", teacher="" if local else answer.teacher_model),
        weight=weight,
        student_attempt=answer.text if local else "",
        release=answer.versions.release,
        user=query.user,
        request=answer.query_id,
        # The rating is of `response`: a correction is not a bad response.
        rating=0 if correction else rating,
    )
