"""Several teachers, asked in order until one answers; who did, and why the others did not, is in the answer.

A refusal, and an answer that reached its own limit, are answers of a kind: nobody else is asked, as that would be
shopping for another opinion, or paying twice for the same cut. It knows no kind of teacher.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from shammah_chassis.errors import ShammahError, TeacherError, TeacherRefusedError, TeacherTruncatedError
from shammah_chassis.examples import Message

from shammah_gateway.teachers.faults import TeacherCutOffError
from shammah_gateway.teachers.guard import Guard
from shammah_gateway.teachers.ports import (
    Form,
    FormPort,
    Generation,
    Judgement,
    JudgingPort,
    TeacherAnswer,
    TeacherPort,
    Wish,
)

Told = TypeVar("Told")
_log = logging.getLogger(__name__)


@runtime_checkable
class GuardedTeacher(Protocol):
    """A remote teacher: it has a breaker, and can be told to hurry."""

    name: str
    guard: Guard

    @property
    def models(self) -> tuple[str, ...]:
        """The models that an answer may come from."""
        ...

    async def answer(
        self, messages: Sequence[Message], max_tokens: int, *, seconds: float | None = None
    ) -> TeacherAnswer:
        """As `TeacherPort.answer`, within `seconds`."""
        ...

    async def generate(self, wish: Wish, *, seconds: float | None = None) -> Generation:
        """As `TeacherPort.generate`, within `seconds`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherState:
    """One teacher of the list, for status. `state`: closed (it is asked), open (it is not), half_open (on trial)."""

    name: str
    state: str
    answered: int
    failed: int
    last_error: str
    # Why it is not asked now; "" when it is.
    reason: str

    @property
    def detail(self) -> str:
        """One line for people."""
        last = f"; last error: {self.last_error}" if self.last_error else ""
        return f"answered {self.answered}, failed {self.failed}" + (f"; {self.reason}" if self.reason else last)


class FallbackTeacher:
    """Teachers in order. `seconds` is for all of them together: each may take an equal share of what is left."""

    def __init__(
        self, teachers: Sequence[TeacherPort], *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._teachers = tuple(teachers)
        self._seconds = seconds
        self._clock = clock
        self._answered = dict.fromkeys((port.name for port in teachers), 0)
        self._failed = dict.fromkeys((port.name for port in teachers), 0)
        self._errors: dict[str, str] = {}
        self.name = ",".join(self._answered)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that a paid answer may come from: for the price of a call before it is made."""
        return tuple(model for port in self._teachers if isinstance(port, GuardedTeacher) for model in port.models)

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        """As `TeacherPort.answer`; when all fail, the error names each with its reason."""

        async def ask(port: TeacherPort, seconds: float) -> TeacherAnswer:
            if isinstance(port, GuardedTeacher):
                return await port.answer(messages, max_tokens, seconds=seconds)
            return await port.answer(messages, max_tokens)

        told, teacher, passed_over = await self._first(self._teachers, ask)
        return replace(told, teacher=teacher, passed_over=passed_over)

    async def generate(self, wish: Wish) -> Generation:
        """As `TeacherPort.generate`, by the first that can make the category."""

        async def ask(port: TeacherPort, seconds: float) -> Generation:
            if isinstance(port, GuardedTeacher):
                return await port.generate(wish, seconds=seconds)
            return await port.generate(wish)

        able = [port for port in self._teachers if (known := port.categories()) is None or wish.category in known]
        # With nobody able, the first one says what it knows.
        made, _, _ = await self._first(able or self._teachers[:1], ask)
        return made

    async def judge(self, query: str, reference: str, response: str, *, seconds: float | None = None) -> Judgement:
        """As `JudgingPort.judge`, by the first that can."""

        async def ask(port: TeacherPort, share: float) -> Judgement:
            assert isinstance(port, JudgingPort)
            return await port.judge(query, reference, response, seconds=share)

        able = [port for port in self._teachers if isinstance(port, JudgingPort)]
        if not able:
            raise TeacherError(f"no teacher of {self.name} can judge")
        return (await self._first(able, ask, seconds))[0]

    async def fill(self, prompt: str, form: Form, max_tokens: int, *, seconds: float | None = None) -> TeacherAnswer:
        """As `FormPort.fill`, by the first that can."""

        async def ask(port: TeacherPort, share: float) -> TeacherAnswer:
            assert isinstance(port, FormPort)
            return await port.fill(prompt, form, max_tokens, seconds=share)

        able = [port for port in self._teachers if isinstance(port, FormPort)]
        if not able:
            raise TeacherError(f"no teacher of {self.name} can answer in a form")
        return (await self._first(able, ask, seconds))[0]

    @property
    def desks(self) -> tuple[object, ...]:
        """Where Message Batches can be bought, in the order of the teachers."""
        found = (getattr(port, "batches", None) for port in self._teachers)
        return tuple(desk for desk in found if desk is not None)

    def categories(self) -> frozenset[str] | None:
        """Return what any of them can make; None for everything."""
        known = [port.categories() for port in self._teachers]
        return None if None in known else frozenset().union(*(names for names in known if names is not None))

    def states(self) -> tuple[TeacherState, ...]:
        """Return each teacher in order, as it is now."""
        return tuple(self._describe(port) for port in self._teachers)

    async def close(self) -> None:
        """Close the connections of all."""
        for port in self._teachers:
            close: Any = getattr(port, "close", None)
            if close is not None:
                await close()

    async def _first(
        self,
        ports: Sequence[TeacherPort],
        ask: Callable[[TeacherPort, float], Awaitable[Told]],
        seconds: float | None = None,
    ) -> tuple[Told, str, tuple[tuple[str, str], ...]]:
        deadline = self._clock() + min(self._seconds, seconds if seconds is not None else self._seconds)
        failed: list[tuple[str, TeacherError]] = []
        for index, port in enumerate(ports):
            share = (deadline - self._clock()) / (len(ports) - index)
            try:
                told = await ask(port, max(share, 0.0))
            except TeacherError as error:
                self._failed[port.name] += 1
                self._errors[port.name] = error.message
                if _is_final(error):
                    raise
                failed.append((port.name, error))
                _log.warning("%s", error.message)
                continue
            self._answered[port.name] += 1
            self._errors.pop(port.name, None)
            return told, port.name, tuple((name, error.message) for name, error in failed)
        raise _join(failed)

    def _describe(self, port: TeacherPort) -> TeacherState:
        breaker = port.guard.breaker if isinstance(port, GuardedTeacher) else None
        return TeacherState(
            name=port.name,
            state=breaker.state if breaker else "closed",
            answered=self._answered[port.name],
            failed=self._failed[port.name],
            last_error=self._errors.get(port.name, ""),
            reason=breaker.reason if breaker else "",
        )


def _is_final(error: TeacherError) -> bool:
    """Say whether the teacher did answer, so that no other is asked."""
    if isinstance(error, TeacherCutOffError):
        return False
    return isinstance(error, (TeacherRefusedError, TeacherTruncatedError))


def _join(failed: Sequence[tuple[str, TeacherError]]) -> ShammahError:
    """Return one error for all; of their common class, if they have one."""
    if len(failed) == 1:
        return failed[0][1]
    kinds = {type(error) for _, error in failed}
    kind = kinds.pop() if len(kinds) == 1 else TeacherError
    text = "; ".join(f"{name}: {error.message}" for name, error in failed)
    waits = [error.retry_after_seconds for _, error in failed if error.retry_after_seconds is not None]
    return kind(f"no teacher answered ({text})", retry_after_seconds=min(waits) if waits else None)
