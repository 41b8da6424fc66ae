"""What a teacher is asked and gives, as plain values, and what a kind of teacher must be able to do, as protocols.

It knows no kind of teacher, no money and no cascade. A teacher that gives no usable answer raises; no example is made
of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from shammah_chassis.examples import Example, Message

from shammah_gateway.money.usage import Usage

# The longest output of `generate`; what a form adds to a prompt, in bytes.
GENERATE_TOKENS = 16_000
FORM_BYTES = 4_096
# How much of the queries that are there already a wish shows, in bytes.
EXCLUDED_BYTES = 4_096
# Says how unsure the student is of each of some queries, 0 to 1; None where nobody knows.
Doubts = Callable[[Sequence[str]], Awaitable[Sequence[float] | None]]
# The longest verdict of `judge`: a sentence, and room for a model that thinks before it writes.
JUDGE_TOKENS = 2_000


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
    """What a teacher is asked to make: `samples` show the form, `exclude` are queries that are there already.

    Queries in `exclude` are normalised (`shammah_chassis.text.normalise_query`). `doubts` may be asked by a teacher
    that has queries to choose from.
    """

    category: str
    count: int
    difficulty: str = "medium"
    focus: str = ""
    samples: tuple[OfferedExample, ...] = ()
    exclude: frozenset[str] = frozenset()
    # "2 of 5" of equal requests that are made beside each other; "" for a request of its own.
    part: str = ""
    doubts: Doubts | None = field(default=None, compare=False)

    @property
    def max_tokens(self) -> int:
        """The room for the examples: some 200 tokens each at most, and a model that thinks before it writes."""
        return min(GENERATE_TOKENS, 4_000 + 400 * self.count)


@dataclass(frozen=True, slots=True)
class Generation:
    """The examples that a teacher made for a wish, and what it was billed for them.

    `broken` are those that were not in the form that was asked for, as text. `short` says why there are fewer than
    were wished for, where that is known ("" else): a budget, a part that failed.
    """

    examples: tuple[OfferedExample, ...]
    model: str
    usage: Usage = field(default_factory=Usage)
    broken: tuple[str, ...] = ()
    short: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a response says the same as a reference, why, who says so, and what that was billed."""

    agrees: bool
    reason: str
    model: str
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a structured answer: a JSON schema (objects closed by additionalProperties false) and its name."""

    name: str
    schema: Mapping[str, Any]


_billed: ContextVar[list[tuple[str, Usage]] | None] = ContextVar("billed", default=None)


@contextmanager
def note_billed() -> Iterator[list[tuple[str, Usage]]]:
    """Collect what `report_billed` is told inside of the block."""
    notes: list[tuple[str, Usage]] = []
    token = _billed.set(notes)
    try:
        yield notes
    finally:
        _billed.reset(token)


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


@runtime_checkable
class JudgingPort(Protocol):
    """A kind of teacher that can judge; `seconds` bounds it further."""

    async def judge(self, query: str, reference: str, response: str, *, seconds: float | None = None) -> Judgement:
        """Say whether a response to a query says the same as the reference. Raises as `TeacherPort.answer`."""
        ...


@runtime_checkable
class FormPort(Protocol):
    """A kind of teacher that can answer in a given form; `seconds` bounds it further."""

    async def fill(self, prompt: str, form: Form, max_tokens: int, *, seconds: float | None = None) -> TeacherAnswer:
        """Answer with JSON text of a form. Raises as `TeacherPort.answer`; whoever asked checks the JSON."""
        ...


def count_bytes(*texts: str) -> int:
    """Return the bytes that texts have in a prompt."""
    return sum(len(text.encode()) for text in texts)
