"""The gate to the teacher: what is about to be sent is masked, and noted before it leaves.

A user's own query that is forwarded is sent as it is and only counted: the user sends it. All else is sent by tools or
by the gateway itself (audits), so it is masked where that is on, and has its own line. It calls no teacher.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from shammah_chassis.examples import Message

from shammah_gateway.consent.audit import AuditLog
from shammah_gateway.consent.counts import TrafficCounts
from shammah_gateway.consent.masking import Masker
from shammah_gateway.teachers.ports import Generation, TeacherAnswer, Wish

# The purpose of a call that a user makes for itself.
OWN = "answer"
Value = TypeVar("Value")


class TeacherGate:
    """`hosts` are the servers that may be asked, in their order; none where answers are recorded: nothing is sent then.

    `pass_...` return what may be sent, and raise StorageFullError where it can't be noted: then nothing may be.
    `take_...` return what came back as it may be kept.
    """

    def __init__(
        self, log: AuditLog, counts: TrafficCounts, masker: Masker | None = None, *, hosts: Sequence[str] = ()
    ) -> None:
        self._log = log
        self._counts = counts
        self._masker = masker
        self._hosts = list(hosts)

    async def pass_messages(
        self, messages: Sequence[Message], *, purpose: str, caller: str, models: Sequence[str]
    ) -> tuple[Message, ...]:
        """Let the turns of a query pass."""

        def mask(mask_text: Callable[[str], str]) -> tuple[Message, ...]:
            return tuple(replace(turn, content=mask_text(turn.content)) for turn in messages)

        if purpose == OWN:
            size = sum(len(turn.content.encode()) for turn in messages)
            for host in self._hosts[:1]:
                self._counts.add(caller, f"sent {host}", size=size)
            return tuple(messages)
        masked, kinds = await self._mask(mask)
        size = sum(len(turn.content.encode()) for turn in masked)
        await self._note(purpose, caller, models, size, kinds)
        return masked

    async def pass_wish(self, wish: Wish, *, caller: str, models: Sequence[str]) -> Wish:
        """Let a wish for examples pass, with its samples and its focus."""

        def mask(mask_text: Callable[[str], str]) -> Wish:
            samples = tuple(
                replace(row, query=mask_text(row.query), response=mask_text(row.response)) for row in wish.samples
            )
            known = frozenset(mask_text(query) for query in wish.exclude)
            return replace(wish, focus=mask_text(wish.focus), samples=samples, exclude=known)

        masked, kinds = await self._mask(mask)
        texts = [masked.focus, *masked.exclude, *(text for row in masked.samples for text in (row.query, row.response))]
        size = sum(len(text.encode()) for text in texts)
        more = {"category": wish.category, "count": wish.count}
        await self._note("teach", caller, models, size, kinds, more)
        return masked

    async def pass_texts(self, *texts: str, purpose: str, caller: str, models: Sequence[str]) -> tuple[str, ...]:
        """Let texts of any use pass: what is judged, a prompt."""

        def mask(mask_text: Callable[[str], str]) -> tuple[str, ...]:
            return tuple(mask_text(text) for text in texts)

        masked, kinds = await self._mask(mask)
        await self._note(purpose, caller, models, sum(len(text.encode()) for text in masked), kinds)
        return masked

    async def take_answer(self, told: TeacherAnswer, *, purpose: str) -> TeacherAnswer:
        """Return a teacher's answer as a tool may keep it: in a job, as an example. A user's own is left as it is."""
        if self._masker is None or purpose == OWN:
            return told
        return replace(told, text=(await asyncio.to_thread(self._masker.mask, told.text))[0])

    async def take_generation(self, made: Generation) -> Generation:
        """Return made examples as a tool may keep them."""
        masker = self._masker
        if masker is None:
            return made

        def mask() -> Generation:
            rows = tuple(
                replace(row, query=masker.mask(row.query)[0], response=masker.mask(row.response)[0])
                for row in made.examples
            )
            return replace(made, examples=rows, broken=tuple(masker.mask(text)[0] for text in made.broken))

        return await asyncio.to_thread(mask)

    async def _mask(self, work: Callable[[Callable[[str], str]], Value]) -> tuple[Value, Mapping[str, int]]:
        masker, kinds = self._masker, Counter[str]()
        if masker is None or not self._hosts:
            return work(lambda text: text), kinds

        def mask_text(text: str) -> str:
            masked, found = masker.mask(text)
            kinds.update(found)
            return masked

        return await asyncio.to_thread(work, mask_text), kinds

    async def _note(
        self,
        purpose: str,
        caller: str,
        models: Sequence[str],
        size: int,
        kinds: Mapping[str, int],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        what: dict[str, Any] = {
            "purpose": purpose,
            # In the order in which they are asked until one answers.
            "hosts": self._hosts,
            "models": list(models),
            "bytes": size if self._hosts else 0,
            **(more or {}),
        }
        if kinds:
            what["masked"] = dict(kinds)
        await self._log.note("teacher", caller=caller, what=what)
