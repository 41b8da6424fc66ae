"""The interface of a teacher, and the hard budget that every kind is wrapped in.

It knows no kind of teacher and no cascade. A teacher that gives no usable answer raises; no example is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from shammah_chassis.errors import TeacherError
from shammah_chassis.examples import Example, Message

from shammah_gateway.spending import Spending

Purpose = Literal["answer", "teach", "audit", "compare"]


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """What a teacher answered; tokens are as billed (0 when nothing was).

    `known` is the recorded example that the answer is from: it carries category, grader and reference.
    """

    text: str
    model: str
    stop_reason: str
    input_tokens: int = 0
    output_tokens: int = 0
    known: Example | None = None


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
    """The examples that a teacher made for a wish, and what they cost."""

    examples: tuple[OfferedExample, ...]
    model: str
    input_tokens: int = 0
    output_tokens: int = 0


class TeacherPort(Protocol):
    """One kind of teacher."""

    name: str

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        """Answer a query.

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
    """A teacher under a hard budget: every call is counted on disk before it is made, by purpose."""

    def __init__(self, port: TeacherPort, spending: Spending) -> None:
        self._port = port
        self.spending = spending
        # The last error, for status: a wrong key should be seen without asking.
        self.last_error: TeacherError | None = None

    @property
    def name(self) -> str:
        """The kind of teacher."""
        return self._port.name

    def categories(self) -> frozenset[str] | None:
        """As `TeacherPort.categories`."""
        return self._port.categories()

    async def answer(self, messages: Sequence[Message], max_tokens: int, *, purpose: Purpose) -> TeacherAnswer:
        """As `TeacherPort.answer`; raises BudgetError when the calls are spent."""
        self.spending.take(purpose)
        try:
            told = await self._port.answer(messages, max_tokens)
        except TeacherError as error:
            self.last_error = error
            raise
        self.last_error = None
        self.spending.add_tokens(purpose, told.input_tokens, told.output_tokens)
        return told

    async def generate(self, wish: Wish) -> Generation:
        """As `TeacherPort.generate`; raises BudgetError when the calls are spent."""
        self.spending.take("teach")
        try:
            made = await self._port.generate(wish)
        except TeacherError as error:
            self.last_error = error
            raise
        self.last_error = None
        self.spending.add_tokens("teach", made.input_tokens, made.output_tokens)
        return made
