"""The interface of a teacher, and the ledger that every kind is wrapped in.

It knows no kind of teacher and no cascade. A teacher that gives no usable answer raises; no example is made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shammah_chassis.errors import TeacherError, TeacherTimeoutError, TeacherTruncatedError
from shammah_chassis.examples import Example, Message

from shammah_gateway.money.caps import Purpose
from shammah_gateway.money.ledger import Hold, Ledger
from shammah_gateway.money.usage import Usage, bound_usage

# The longest output of `generate`, and what its instructions, schema and samples add to a wish, in bytes.
GENERATE_TOKENS = 16_000
GENERATE_BYTES = 8_192
# What a template may put around a turn, in bytes.
_TURN_BYTES = 32
# The price of a teacher that calls no paid model: known, and nothing.
_FREE = ("recorded",)


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """What a teacher answered, and what it was billed for it.

    `known` is the recorded example that the answer is from: it carries category, grader and reference. `teacher` is
    who gave it, where several may ("" where there is one), `passed_over` (name, reason) of those who did not.
    """

    text: str
    model: str
    stop_reason: str
    usage: Usage = field(default_factory=Usage)
    known: Example | None = None
    teacher: str = ""
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def input_tokens(self) -> int:
        """The uncached part of the prompt, as billed."""
        return self.usage.input_tokens

    @property
    def output_tokens(self) -> int:
        """The output as billed."""
        return self.usage.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedExample:
    """An example that a teacher or a caller offers; `known` as in `TeacherAnswer`."""

    query: str
    response: str
    category: str = ""
    grader: str = ""
    known: Example | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a teacher is asked to make: `samples` show the form, `exclude` are queries that are there already."""

    category: str
    count: int
    difficulty: str = "medium"
    focus: str = ""
    samples: tuple[OfferedExample, ...] = ()
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Generation:
    """The examples that a teacher made for a wish, and what it was billed for them."""

    examples: tuple[OfferedExample, ...]
    model: str
    usage: Usage = field(default_factory=Usage)


class _Told(Protocol):
    """What a call gave: who answered, and what was billed."""

    @property
    def model(self) -> str: ...
    @property
    def usage(self) -> Usage: ...


Told = TypeVar("Told", bound=_Told)
_billed: ContextVar[list[tuple[str, Usage]] | None] = ContextVar("billed", default=None)


def report_billed(model: str, usage: Usage) -> None:
    """Say that an attempt was billed although it gives no answer: declined, cut, empty, or tried again.

    Called by a kind of teacher before it raises; it is booked with the call that the attempt was part of.
    """
    notes = _billed.get()
    if notes is not None:
        notes.append((model, usage))


class TeacherPort(Protocol):
    """One kind of teacher."""

    name: str

    @property
    def models(self) -> tuple[str, ...]:
        """The ids of the paid models that it may ask: for the price of a call before it is made. None: it is free."""
        ...

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        """Answer a query; `report_billed` first where it raises though something was billed.

        Raises:
            TeacherAuthError, TeacherTimeoutError, TeacherRefusedError, TeacherTruncatedError, TeacherError.
        """
        ...

    async def generate(self, wish: Wish) -> Generation:
        """Make new examples, at most `wish.count`; fewer when it has no more. Raises as `answer`."""
        ...

    def categories(self) -> frozenset[str] | None:
        """Return the categories that it can make examples of; None for any."""
        ...


class Teacher:
    """A teacher under hard caps: every call is counted before it is made and booked after it, by purpose and caller.

    A `caller` "" is the gateway itself: the cap for each caller does not apply.
    """

    def __init__(self, port: TeacherPort, ledger: Ledger) -> None:
        self._port = port
        self.ledger = ledger
        # The last error, for status: a wrong key should be seen without asking.
        self.last_error: TeacherError | None = None

    @property
    def name(self) -> str:
        """The kind of teacher."""
        return self._port.name

    @property
    def port(self) -> TeacherPort:
        """What is asked: for status."""
        return self._port

    async def close(self) -> None:
        """Close the connections of a teacher that has any."""
        close = getattr(self._port, "close", None)
        if close is not None:
            await close()

    def categories(self) -> frozenset[str] | None:
        """As `TeacherPort.categories`."""
        return self._port.categories()

    def check(self, purpose: Purpose, *, caller: str = "") -> None:
        """Raise BudgetError where not even the smallest call could be made now; nothing is counted."""
        self.ledger.check(purpose, caller=caller, models=self._port.models or _FREE, worst=bound_usage(0, 1))

    async def answer(
        self, messages: Sequence[Message], max_tokens: int, *, purpose: Purpose, caller: str = ""
    ) -> TeacherAnswer:
        """As `TeacherPort.answer`; raises BudgetError at a cap, and StorageFullError as `Ledger.take`."""
        prompt = sum(len(turn.content.encode()) + _TURN_BYTES for turn in messages)
        hold = self._take(purpose, caller, bound_usage(prompt, max_tokens))
        return await self._meter(hold, lambda: self._port.answer(messages, max_tokens))

    async def generate(self, wish: Wish, *, caller: str = "") -> Generation:
        """As `TeacherPort.generate`; raises BudgetError at a cap, and StorageFullError as `Ledger.take`."""
        given = sum(len(row.query.encode()) + len(row.response.encode()) for row in wish.samples)
        prompt = given + len(wish.focus.encode()) + GENERATE_BYTES
        hold = self._take("teach", caller, bound_usage(prompt, GENERATE_TOKENS))
        return await self._meter(hold, lambda: self._port.generate(wish))

    def _take(self, purpose: Purpose, caller: str, worst: Usage) -> Hold:
        return self.ledger.take(purpose, caller=caller, models=self._port.models or _FREE, worst=worst)

    async def _meter(self, hold: Hold, call: Callable[[], Awaitable[Told]]) -> Told:
        """Make a call and book what came of it, whatever that is."""
        notes: list[tuple[str, Usage]] = []
        token = _billed.set(notes)
        try:
            told = await call()
        except (TeacherTimeoutError, TeacherTruncatedError, asyncio.CancelledError) as error:
            self._note_error(error)
            if not notes:
                # It may have been billed, and nobody will tell us.
                self.ledger.give_up(hold)
            raise
        except TeacherError as error:
            self._note_error(error)
            raise
        else:
            self.last_error = None
            self.ledger.book(hold.purpose, caller=hold.caller, model=told.model, usage=told.usage, hold=hold)
            return told
        finally:
            _billed.reset(token)
            for model, usage in notes:
                self.ledger.book(hold.purpose, caller=hold.caller, model=model, usage=usage, hold=hold)
            self.ledger.release(hold)

    def _note_error(self, error: BaseException) -> None:
        if isinstance(error, TeacherError):
            self.last_error = error
