"""Examples by the teacher in saved steps: asked, kept, checked, and asked again for what is missing.

What a teacher was paid for is saved before the next step; run again after a restart it is read, not bought. It queues
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from shammah_chassis.errors import BudgetError, TeacherError, UnavailableError
from shammah_chassis.text import normalise_query

from shammah_gateway.agreement import AgreementPolicy, check_agreement, choose
from shammah_gateway.jobs import Progress
from shammah_gateway.offers import Sieve, sift_offers
from shammah_gateway.teachers.base import MAX_DIRECT, BatchHandle, Generation, OfferedExample, Teacher, Wish
from shammah_gateway.teachers.kept import read_generation_json, write_generation_json
from shammah_gateway.tools.aim import Aim
from shammah_gateway.tools.context import ToolContext

# A recorded teacher that was started again may hand out what is there already: ask again, but not for ever.
MAX_FREE_ASKS = 200
# Asks of a paid teacher beyond those that its size of answer makes necessary.
MORE_ASKS = 3
TRAINER_SECONDS = 120
LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Steps:
    """What one call has saved: aim, answers of the teacher, second answers' verdicts, a batch on its way, the end."""

    save: Callable[[dict[str, Any]], None]
    aim: Aim | None = None
    asks: list[Generation] = field(default_factory=list)
    agreement: dict[str, str] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    # What is to be queued and told, once all is checked.
    final: dict[str, Any] | None = None

    @classmethod
    def load(cls, progress: Progress) -> Steps:
        """Return what was saved before a restart; empty at first."""
        state = progress.state
        asks = [read_generation_json(value) for value in state.get("asks", [])]
        return cls(
            progress.save,
            Aim(**state["aim"]) if state.get("aim") else None,
            asks,
            dict(state.get("agreement", {})),
            dict(state.get("batch", {})),
            state.get("final"),
        )

    def keep(self) -> None:
        """Save all."""
        if self.final is not None:
            # The examples are in it: what they were made of is done with.
            self.save({"final": self.final})
            return
        asks = [write_generation_json(made) for made in self.asks]
        aim = asdict(self.aim) if self.aim is not None else None
        self.save({"aim": aim, "asks": asks, "agreement": self.agreement, "batch": self.batch})

    def add(self, made: Generation) -> None:
        """Keep what a teacher gave; the batch that it came by is over."""
        self.asks.append(made)
        self.batch = {}
        self.keep()

    def finish(self, final: dict[str, Any]) -> None:
        """Keep what is to be queued, before it is."""
        self.final = final
        self.keep()

    def hold_batch(self, report: Callable[[str], None]) -> BatchHandle:
        """Return where a batch is remembered."""

        def save(state: Any) -> None:  # noqa: ANN401 - JSON
            self.batch = dict(state)
            self.keep()

        return BatchHandle(dict(self.batch), save, report)


@dataclass(slots=True)
class Maker:
    """One call of the tool: what is wished for, of whom, and how far it is."""

    context: ToolContext
    teacher: Teacher
    wish: Wish
    steps: Steps
    progress: Progress
    caller: str
    total: Sieve = field(default_factory=Sieve)
    note: str = ""

    @property
    def missing(self) -> int:
        """How many examples are missing."""
        return max(0, self.wish.count - len(self.total.passed))

    async def collect(self) -> None:
        """Ask until the wish is met or the teacher has no more; each round is checked before the next one.

        A budget that ends, or a teacher that fails, after the first round is told in `note`: what is there counts.

        Raises:
            TeacherError, BudgetError: nothing at all was made. UnavailableError: the trainer that checks is away.
        """
        paid = bool(self.teacher.port.models)
        asks = -(-self.wish.count // MAX_DIRECT) + MORE_ASKS if paid else MAX_FREE_ASKS
        for turn in range(asks):
            made = await self._ask(turn)
            if made is None:
                break
            before = len(self.total.passed)
            await self._check(made)
            # A paid teacher that repeats itself is not asked again and again for the rest.
            if not self.missing or not made.examples or (paid and len(self.total.passed) == before):
                break

    async def _ask(self, turn: int) -> Generation | None:
        """Return the answer of a turn, from before a restart if there was one; None when there is no more."""
        steps = self.steps
        if turn < len(steps.asks):
            return steps.asks[turn]
        self._report(f"the teacher writes {self.missing} examples")
        seen = frozenset(normalise_query(row.query) for made in steps.asks for row in made.examples)
        wish = replace(self.wish, count=self.missing, exclude=seen)
        try:
            made = await self.teacher.generate(wish, caller=self.caller, batch=steps.hold_batch(self._report))
        except (TeacherError, BudgetError) as error:
            if not steps.asks:
                raise
            self.note = error.message
            return None
        steps.add(made)
        return made

    async def _check(self, made: Generation) -> None:
        sieve = await asyncio.to_thread(
            sift_offers, made.examples, category=self.wish.category, teacher=self.teacher.name, model=made.model
        )
        for sample in made.broken:
            sieve.reject("schema", sample)
        # Before anybody is paid for a second answer.
        sieve.drop_known(self.total)
        await check_by_trainer(self.context, sieve)
        self._report("checking by second answers")
        self.note = (
            await check_seconds(
                self.context.agreement,
                self.teacher,
                sieve,
                steps=self.steps,
                samples=self.wish.samples,
                caller=self.caller,
            )
            or made.short
            or self.note
        )
        self.total.merge(sieve)

    def _report(self, stage: str) -> None:
        self.progress.report(len(self.total.passed) / self.wish.count, stage)


async def check_seconds(
    policy: AgreementPolicy,
    teacher: Teacher,
    sieve: Sieve,
    *,
    steps: Steps,
    samples: Sequence[OfferedExample] = (),
    caller: str,
) -> str:
    """Reject what a second answer of the teacher disagrees with; returns what could not be checked and why, or "".

    Recorded rows are ground truth, and are not asked for.
    """
    if not teacher.can_fill():
        return ""
    made = [row for row in sieve.passed if row.id not in sieve.truths]
    chosen = choose(made, policy, known=steps.agreement)
    if not chosen:
        return ""
    found = await check_agreement(
        teacher, chosen, samples=samples, caller=caller, known=steps.agreement, keep=steps.keep
    )
    sieve.drop(found.failed)
    if not found.unchecked:
        return ""
    why = found.note or "no usable second answer"
    return f"{found.unchecked} examples are queued without a second answer: {why}"


async def check_by_trainer(context: ToolContext, sieve: Sieve) -> None:
    """Have the trainer say what it would not take; one that is away for a moment is waited for.

    Raises:
        UnavailableError: there is none, or it is away for two minutes.
    """
    for tries in range(TRAINER_SECONDS):
        try:
            sieve.apply(await context.trainer.check(sieve.passed))
        except UnavailableError:
            if not context.trainer.target or tries == TRAINER_SECONDS - 1:
                raise
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return
