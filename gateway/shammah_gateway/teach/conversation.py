"""The conversation with Claude in the journal: written as it grows, read back as it was. It makes no call.

Turns are kept as the API gave them, thinking blocks included: they are bound to the model and the conversation, so
nothing of them is ever edited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from shammah_gateway.teach.journal import Journal

Turn = dict[str, Any]


class Conversation:
    """The turns of one session; `turns` is what the next request sends."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.turns: list[Turn] = []
        self.last_stop = ""
        for entry in journal.entries:
            if entry["kind"] == "turn":
                self._add(entry)
            elif entry["kind"] == "reply" and entry["kept"]:
                self._add({"role": "assistant", "content": entry["content"]})
                self.last_stop = entry["stop_reason"]

    def opening(self, system: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return system prompt and tools of the session: those that it was begun with, else these from now on."""
        known = self._journal.of("opening")
        return known[0] if known else self._journal.append("opening", {"system": system, "tools": list(tools)})

    def add_user(self, content: str | list[Turn]) -> None:
        """Add a turn of ours: words, or tool results."""
        self._add(self._journal.append("turn", {"role": "user", "content": content}))
        self.last_stop = ""

    def ask(self, bound: Decimal | None) -> None:
        """Note that a request is made now, and the most that it may cost."""
        self._journal.append("asking", {"bound_usd": str(bound or 0)})

    def add_reply(self, content: list[Turn], stop: str, *, usd: Decimal | None, usage: Mapping[str, Any]) -> None:
        """Add Claude's turn and what it cost."""
        self._note_reply(content, stop, usd=usd, usage=usage, kept=True)
        self._add({"role": "assistant", "content": content})
        self.last_stop = stop

    def drop_reply(self, content: list[Turn], stop: str, *, usd: Decimal | None, usage: Mapping[str, Any]) -> None:
        """Note a reply that was billed but is not part of the conversation: declined, or cut."""
        self._note_reply(content, stop, usd=usd, usage=usage, kept=False)

    def fail(self, reason: str, *, usd: Decimal) -> None:
        """Note a request without a reply; `usd` is what it may have cost all the same."""
        self._journal.append("no_reply", {"reason": reason, "usd": str(usd)})

    @property
    def open_calls(self) -> list[Turn]:
        """The tool calls of the last turn that have no results yet."""
        if not self.turns or self.turns[-1]["role"] != "assistant" or self.last_stop != "tool_use":
            return []
        return [block for block in self.turns[-1]["content"] if block["type"] == "tool_use"]

    @property
    def ended(self) -> bool:
        """Say whether Claude had the last word, and meant it as the last."""
        return (
            bool(self.turns)
            and self.turns[-1]["role"] == "assistant"
            and self.last_stop
            not in (
                "tool_use",
                "pause_turn",
            )
        )

    def _note_reply(
        self, content: list[Turn], stop: str, *, usd: Decimal | None, usage: Mapping[str, Any], kept: bool
    ) -> None:
        values = {"content": content, "stop_reason": stop, "kept": kept, "usage": dict(usage)}
        self._journal.append("reply", {**values, "usd": str(usd or 0), "priced": usd is not None})

    def _add(self, turn: Mapping[str, Any]) -> None:
        self.turns.append({"role": turn["role"], "content": turn["content"]})
