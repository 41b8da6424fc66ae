"""All of consent in one piece: tokens, audit log, counts, masking; and what goes on beside the traffic.

It knows the settings and no transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shammah_chassis.examples import Example
from shammah_chassis.tasks import stop_tasks
from shammah_chassis.tokens import Entry, TokenTable

from shammah_gateway.config import GatewaySettings
from shammah_gateway.consent.audit import AuditLog
from shammah_gateway.consent.calls import CallLog
from shammah_gateway.consent.counts import TrafficCounts
from shammah_gateway.consent.gate import TeacherGate
from shammah_gateway.consent.masking import Masker, mask_example, mask_value, open_masker
from shammah_gateway.teachers.upstreams import read_host

FLUSH_SECONDS = 60
LOOK_SECONDS = 1.0
# Examples that somebody queued on purpose have their own line; those of traffic are counted.
_OWN_LINE = frozenset({"generate", "submit", "feedback"})
# The arguments of tools that hold texts of people.
_TEXTS = frozenset({"query", "teacher_response", "focus", "examples"})


@dataclass(slots=True)
class Consent:
    """The parts; `masker` None: masking is off. `start` and `close` frame the watch over the tokens.

    `on_grants` is called when somebody may do more or less than before.
    """

    tokens: TokenTable
    log: AuditLog
    calls: CallLog
    counts: TrafficCounts
    gate: TeacherGate
    masker: Masker | None = None
    on_grants: Callable[[], None] | None = None
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Note who may do what, and follow the table of tokens."""
        grants = {entry.name: sorted(entry.scopes) for entry in self.tokens.entries}
        self.log.jot("start", caller="", what={"grants": grants, "masking": self.masker is not None})
        self.tokens.on_change = self._note_grants
        self._task = asyncio.create_task(self._watch(), name="consent")

    async def close(self) -> None:
        """Write what was counted, and close the log."""
        await stop_tasks([self._task])
        self.counts.flush(self.log)
        self.log.jot("stop", caller="", what={})
        await self.log.close()

    def may_audit(self) -> bool:
        """Say whether anybody's local answers may be checked at the teacher's price."""
        return any("audit" in entry.scopes for entry in self.tokens.entries)

    async def admit(self, source: str, examples: Sequence[Example]) -> Sequence[Example]:
        """Return examples as they may be stored: masked, where that is on, and noted by the start of their ids.

        Raises:
            TooLongError: one got too long by masking. StorageFullError: it was queued on purpose and can't be noted.
        """
        masker = self.masker
        if masker is not None:
            examples = await asyncio.to_thread(lambda: [mask_example(masker, example) for example in examples])
        if source in _OWN_LINE:
            ids = [example.id[:16] for example in examples]
            caller = examples[0].user if examples else ""
            what = {"source": source, "count": len(ids), "examples": ids}
            await self.log.note("queue", caller=caller, what=what)
        else:
            self.counts.add("", f"queued {source}", count=len(examples))
        return examples

    async def mask_text(self, text: str) -> str:
        """Return a text masked, where that is on."""
        return text if self.masker is None else (await asyncio.to_thread(self.masker.mask, text))[0]

    async def mask_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a tool with the texts of people masked, where that is on."""
        masker = self.masker
        if masker is None:
            return dict(arguments)
        return await asyncio.to_thread(
            lambda: {name: mask_value(masker, value) if name in _TEXTS else value for name, value in arguments.items()}
        )

    def _note_grants(self, before: tuple[Entry, ...], after: tuple[Entry, ...]) -> None:
        old, new = ({entry.name: entry for entry in entries} for entries in (before, after))
        for name in sorted({*old, *new}):
            if old.get(name) == new.get(name):
                continue
            what = {
                "name": name,
                "before": sorted(old[name].scopes) if name in old else None,
                "after": sorted(new[name].scopes) if name in new else None,
                "new_token": name in new and (name not in old or old[name].sha256 != new[name].sha256),
            }
            self.log.jot("grants", caller=new[name].changed_by if name in new else "", what=what)
        if self.on_grants is not None:
            self.on_grants()

    async def _watch(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # Also without any call: a grant is noted when it is made, not when it is first used.
            self.tokens.refresh()
            turn += 1
            if turn % FLUSH_SECONDS == 0:
                self.counts.flush(self.log)


async def open_consent(settings: GatewaySettings, *, urls: Sequence[str] = ()) -> Consent:
    """Open the parts; `urls` are the addresses of the teachers, in their order.

    Raises:
        InvalidInputError: the tokens can't be read, the audit log is damaged, or masking is on without its extra.
        StorageFullError, UnavailableError: the audit log can't be written.
    """
    tokens = TokenTable.load(settings.tokens_file)
    masker = await asyncio.to_thread(open_masker) if settings.mask_pii else None
    log = AuditLog(settings.own_dir, max_bytes=settings.audit_max_bytes)
    await log.open()
    counts = TrafficCounts()
    return Consent(
        tokens=tokens,
        log=log,
        calls=CallLog(log, texts=settings.audit_texts),
        counts=counts,
        gate=TeacherGate(log, counts, masker, hosts=[read_host(url) for url in urls]),
        masker=masker,
    )
