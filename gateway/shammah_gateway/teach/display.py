"""What a user sees of a session as it runs: a line for each step, on a terminal also what goes on right now.

It decides nothing; everything it shows is in the journal too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from shammah_gateway.cli.console import percent
from shammah_gateway.money.caps import show_usd
from shammah_gateway.teach.findings import measure, read_findings
from shammah_gateway.teach.report import describe_result
from shammah_gateway.teach.session import Outcome
from shammah_gateway.teach.settings import TeachSettings


class Display:
    """Shows one session on a console: plain lines without colour where it is no terminal."""

    def __init__(self, console: Console, settings: TeachSettings) -> None:
        self._console = console
        self._settings = settings
        self._begun = time.monotonic()
        self._step = 0
        self._tool = ""
        self._status: Status | None = None
        self._stage = ""
        self._first: float | None = None
        self._replayed = 0

    def begin(self, step: int, tool: str, arguments: Mapping[str, Any]) -> None:
        """Say what is called."""
        self._step, self._tool, self._stage = step, tool, ""
        if self._replayed:
            self._line(f"{self._replayed} steps are in the journal and are not done again")
            self._replayed = 0
        told = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())
        self._line(f"step {step}: {tool}({told})")
        if self._console.is_terminal:
            self._status = self._console.status(escape(tool))
            self._status.start()

    def progress(self, share: float, stage: str) -> None:
        """Say how far it is: in place on a terminal, else a line for each stage."""
        if self._status is not None:
            self._status.update(escape(f"{self._tool}: {percent(share)} {stage}"))
        elif stage and stage != self._stage:
            self._stage = stage
            self._line(f"  {percent(share)} {stage}")

    def end(self, outcome: Outcome, tool: str, *, cost: Decimal, replayed: bool) -> None:
        """Say what came of it, what the session cost so far, and how far the goal is."""
        self.stop()
        if replayed:
            self._replayed += 1
        else:
            told = describe_result(tool, outcome.value) if outcome.ok else f"{outcome.error_code}: {outcome.error}"
            self._line(f"  {told}  [{show_usd(cost)}]")
        if tool == "analyze_model" and outcome.ok:
            self._show_goal(outcome.value, quiet=replayed)

    def say(self, text: str) -> None:
        """Show words of the planner."""
        self._line(f"  {text}")

    def stop(self) -> None:
        """End what is shown in place."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show_goal(self, analysis: Mapping[str, Any], *, quiet: bool) -> None:
        goal = self._settings.goal
        now = measure(read_findings(analysis), self._settings.categories, goal)
        if self._first is None:
            self._first = now
        if quiet:
            return
        name = "certified local share" if goal.measure == "local_share" else "accuracy"
        self._line(f"  {name}: {percent(self._first)} at first, {percent(now)} now, the goal is {percent(goal.value)}")

    def _line(self, text: str) -> None:
        seconds = f"{time.monotonic() - self._begun:5.0f} s"
        self._console.print(f"[dim]{seconds}[/dim]  {escape(text)}")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
