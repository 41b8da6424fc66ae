"""A teacher as the gateway uses it: one port, under hard caps, every call in the ledger.

It knows no kind of teacher and no cascade. The values and protocols are in `ports`; they can be had from here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from shammah_chassis.errors import TeacherError, TeacherTimeoutError, TeacherTruncatedError
from shammah_chassis.examples import Message

from shammah_gateway.consent.gate import TeacherGate
from shammah_gateway.money.caps import Purpose
from shammah_gateway.money.ledger import Hold, Ledger
from shammah_gateway.money.usage import Usage, bound_usage
from shammah_gateway.teachers.batch_desk import BatchHandle
from shammah_gateway.teachers.bulk import find_desk, run_batch, stop_batch
from shammah_gateway.teachers.judging import JUDGE_WORDING, write_judgement
from shammah_gateway.teachers.ports import (
    FORM_BYTES,
    GENERATE_TOKENS,
    JUDGE_TOKENS,
    Form,
    FormPort,
    Generation,
    Judgement,
    JudgingPort,
    OfferedExample,
    TeacherAnswer,
    TeacherPort,
    Wish,
    count_bytes,
    note_billed,
    report_billed,
)
from shammah_gateway.teachers.verdicts import VerdictBook, digest_case
from shammah_gateway.teachers.wishes import bound_wish

__all__ = [
    "GENERATE_TOKENS",
    "MAX_DIRECT",
    "BatchHandle",
    "Form",
    "FormPort",
    "Generation",
    "Judgement",
    "JudgingPort",
    "OfferedExample",
    "Teacher",
    "TeacherAnswer",
    "TeacherPort",
    "Wish",
    "report_billed",
]

# What a template may put around a turn, in bytes.
_TURN_BYTES = 32
# Most examples of one call of a paid teacher outside of a batch.
MAX_DIRECT = 20
# How long a cancelled batch is waited for: its end says what is billed.
STOP_SECONDS = 20.0
# The price of a teacher that calls no paid model: known, and nothing.
_FREE = ("recorded",)


class _Told(Protocol):
    """What a call gave: who answered, and what was billed."""

    @property
    def model(self) -> str: ...
    @property
    def usage(self) -> Usage: ...


Told = TypeVar("Told", bound=_Told)


class Teacher:
    """A teacher under hard caps: every call is counted before it is made and booked after it, by purpose and caller.

    A `caller` "" is the gateway itself: the cap for each caller does not apply.
    """

    def __init__(self, port: TeacherPort, ledger: Ledger, *, verdicts: VerdictBook | None = None) -> None:
        self._port = port
        self.ledger = ledger
        self._verdicts = VerdictBook(None) if verdicts is None else verdicts
        # What is sent passes it first; None where nobody keeps an audit log (tools of developers, tests).
        self.gate: TeacherGate | None = None
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
        if self.gate is not None:
            messages = await self.gate.pass_messages(messages, purpose=purpose, caller=caller, models=self._port.models)
        prompt = sum(len(turn.content.encode()) + _TURN_BYTES for turn in messages)
        hold = self.take(purpose, caller, bound_usage(prompt, max_tokens))
        told = await self._meter(hold, lambda: self._port.answer(messages, max_tokens))
        return told if self.gate is None else await self.gate.take_answer(told, purpose=purpose)

    async def generate(self, wish: Wish, *, caller: str = "", batch: BatchHandle | None = None) -> Generation:
        """As `TeacherPort.generate`; with `batch` in a Message Batch at half price, where the teacher does that.

        Raises:
            BudgetError at a cap, StorageFullError as `Ledger.take`; else as `TeacherPort.generate`.
        """
        if self.gate is not None:
            wish = await self.gate.pass_wish(wish, caller=caller, models=self._port.models)
        if batch is not None and (desk := find_desk(self._port, wish, batch)) is not None:
            made = await run_batch(self, desk, wish, caller=caller, handle=batch)
        else:
            if self._port.models:
                # What is lost with a connection, cut, or paid for without being received is then little.
                wish = replace(wish, count=min(wish.count, MAX_DIRECT))
            hold = self.take("teach", caller, bound_wish(wish))
            made = await self._meter(hold, lambda: self._port.generate(wish))
        return made if self.gate is None else await self.gate.take_generation(made)

    async def judge(
        self, query: str, reference: str, response: str, *, purpose: Purpose, caller: str = ""
    ) -> Judgement:
        """Say whether a response says the same as a reference; the same question is paid once.

        Raises:
            TeacherError: no teacher can judge this. BudgetError, StorageFullError; else as `TeacherPort.answer`.
        """
        port = self._port
        if not isinstance(port, JudgingPort):
            raise TeacherError(f"teacher {port.name} can't judge")
        digest = digest_case(query, reference, response, f"{port.name} {' '.join(port.models)} {JUDGE_WORDING}")
        if (known := self._verdicts.find(digest)) is not None:
            return known
        if self.gate is not None:
            query, reference, response = await self.gate.pass_texts(
                query, reference, response, purpose=purpose, caller=caller, models=self._port.models
            )
        worst = bound_usage(count_bytes(write_judgement(query, reference, response)) + FORM_BYTES, JUDGE_TOKENS)
        hold = self.take(purpose, caller, worst)
        verdict = await self._meter(hold, lambda: port.judge(query, reference, response))
        self._verdicts.keep(digest, verdict)
        return verdict

    def can_fill(self) -> bool:
        """Say whether there is a teacher that can answer in a form (`fill`)."""
        return isinstance(self._port, FormPort) and bool(self._port.models)

    async def fill(
        self, prompt: str, form: Form, max_tokens: int, *, purpose: Purpose, caller: str = ""
    ) -> TeacherAnswer:
        """As `FormPort.fill`; raises TeacherError where no teacher can, BudgetError at a cap."""
        port = self._port
        if not isinstance(port, FormPort):
            raise TeacherError(f"teacher {port.name} can't answer in a form")
        if self.gate is not None:
            (prompt,) = await self.gate.pass_texts(prompt, purpose=purpose, caller=caller, models=self._port.models)
        hold = self.take(purpose, caller, bound_usage(count_bytes(prompt) + FORM_BYTES, max_tokens))
        return await self._meter(hold, lambda: port.fill(prompt, form, max_tokens))

    async def stop_batch(self, state: Mapping[str, Any], *, caller: str = "") -> str:
        """End a batch that was begun with a `BatchHandle` of this state; returns what to tell.

        Raises as `bulk.stop_batch`.
        """
        handle = BatchHandle(dict(state), lambda _: None, lambda _: None)
        desk = find_desk(self._port, Wish(category="", count=1), handle)
        if desk is None:
            return f"batch {state['id']} goes on: its teacher is not set up any more"
        return await stop_batch(self, desk, caller=caller, state=state, seconds=STOP_SECONDS)

    def take(self, purpose: Purpose, caller: str, worst: Usage) -> Hold:
        """Count a call that is about to be made; raises as `Ledger.take`."""
        return self.ledger.take(purpose, caller=caller, models=self._port.models or _FREE, worst=worst)

    def hold_again(self, purpose: Purpose, caller: str, worst: Usage) -> Hold:
        """Hold what a call may cost that was counted before a restart; as `Ledger.hold_again`."""
        return self.ledger.hold_again(purpose, caller=caller, models=self._port.models or _FREE, worst=worst)

    async def _meter(self, hold: Hold, call: Callable[[], Awaitable[Told]]) -> Told:
        """Make a call and book what came of it, whatever that is."""
        with note_billed() as notes:
            return await self._book(hold, call, notes)

    async def _book(self, hold: Hold, call: Callable[[], Awaitable[Told]], notes: list[tuple[str, Usage]]) -> Told:
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
            for model, usage in notes:
                self.ledger.book(hold.purpose, caller=hold.caller, model=model, usage=usage, hold=hold)
            self.ledger.release(hold)

    def _note_error(self, error: BaseException) -> None:
        if isinstance(error, TeacherError):
            self.last_error = error
