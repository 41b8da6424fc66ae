"""The five tools as Claude holds them in a session: its calls go through the session, its results say what is left.

It knows no conversation. The SDK turns a tool's error into a result for Claude; what must end the session instead is
kept in `halt`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shammah_chassis.errors import ShammahError

from shammah_gateway.money.caps import show_usd
from shammah_gateway.teach.session import Outcome, Session

if TYPE_CHECKING:
    from anthropic.lib.tools import BetaAsyncFunctionTool

CACHE = {"type": "ephemeral", "ttl": "1h"}


class Toolbelt:
    """The tools of one session; `expect` says which calls of Claude come next."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._expected: list[tuple[str, str]] = []
        self.halt: ShammahError | None = None

    def make_tools(self, definitions: Sequence[Mapping[str, Any]]) -> list[BetaAsyncFunctionTool[Any]]:
        """Return the tools for the SDK's runner; the last carries the mark up to which the prompt is cached."""
        from anthropic.lib.tools import BetaAsyncFunctionTool

        made: list[BetaAsyncFunctionTool[Any]] = []
        for number, definition in enumerate(definitions, 1):
            mark: Any = {"cache_control": CACHE} if number == len(definitions) else {}
            made.append(BetaAsyncFunctionTool(self._make_function(definition["name"]), **definition, **mark))
        return made

    def expect(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Say which tool_use blocks are run next: their ids are the keys of the steps."""
        self._expected = [(call["name"], call["id"]) for call in calls]

    async def answer(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Run one tool_use block; returns its tool_result block."""
        text, failed = await self._run(call["name"], call["input"], call["id"])
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call["id"], "content": text}
        return {**block, "is_error": True} if failed else block

    def _make_function(self, name: str) -> Any:  # noqa: ANN401 - the SDK's own type
        async def call(**arguments: Any) -> str:  # noqa: ANN401 - checked by the tool's schema
            from anthropic.lib.tools import ToolError

            text, failed = await self._run(name, arguments, self._find_id(name))
            if failed:
                raise ToolError(text)
            return text

        return call

    def _find_id(self, name: str) -> str:
        """Return the id of the next expected call of a tool; the runner runs them in order and skips unknown ones."""
        while self._expected:
            expected, identity = self._expected.pop(0)
            if expected == name:
                return identity
        raise RuntimeError(f"{name} is run without a call of Claude")

    async def _run(self, name: str, arguments: Mapping[str, Any], identity: str) -> tuple[str, bool]:
        if self.halt is not None:
            return "the session has ended", True
        rounds = self._session.settings.rounds
        if name == "train" and not self._session.knows(identity) and self._session.count_rounds() >= rounds:
            return f"all {rounds} rounds of this session are used; say what was reached and end", True
        try:
            outcome = await self._session.call(name, arguments, key=identity)
        except ShammahError as error:
            self.halt = error
            return error.message, True
        return self._write(outcome), not outcome.ok

    def _write(self, outcome: Outcome) -> str:
        session = self._session
        left = "no limit" if session.left is None else show_usd(session.left)
        rounds = max(0, session.settings.rounds - session.count_rounds())
        told = f"[session: {show_usd(session.cost)} spent, {left} left; {rounds} rounds left]"
        if outcome.ok:
            return f"{json.dumps(outcome.value, ensure_ascii=False)}\n{told}"
        return f"{outcome.error_code}: {outcome.error}\n{told}"
