"""A teaching session: tool calls that are journalled before and after, never made twice, and kept within a budget.

Resuming replays: a planner asks again for what it asked for, and gets what is in the journal; only a call whose result
is missing is sent again, under the request id of its first time. It knows no planner.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from shammah_chassis.errors import BudgetError, ForbiddenError, PreconditionError, ShammahError, UnauthenticatedError

from shammah_gateway.money.caps import show_usd
from shammah_gateway.teach.ending import PASSABLE, State, TeachingEndError
from shammah_gateway.teach.journal import Entry, Journal
from shammah_gateway.teach.link import GatewayLink
from shammah_gateway.teach.settings import TeachSettings, read_settings
from shammah_gateway.teach.spending import SAFETY, ZERO, Spending, Tariff, load_spending, read_spending


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool call gave: its result, or the code and words of its error."""

    step: int
    value: Mapping[str, Any]
    error_code: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Say whether it gave a result."""
        return not self.error_code


class Watcher(Protocol):
    """Who is told what happens, as it happens. Steps that are only replayed are told with `replayed`."""

    def begin(self, step: int, tool: str, arguments: Mapping[str, Any]) -> None:
        """Take note that a tool is called now."""

    def progress(self, share: float, stage: str) -> None:
        """Take note how far it is."""

    def end(self, outcome: Outcome, tool: str, *, cost: Decimal, replayed: bool) -> None:
        """Take note of its end; `cost` is that of the session so far."""

    def say(self, text: str) -> None:
        """Take words of the planner."""


@dataclass(slots=True)
class _Step:
    """One tool call in the journal; `line` is the number of its first line there."""

    line: int
    number: int
    tool: str
    arguments: Mapping[str, Any]
    outcome: Outcome | None = None


class Session:
    """Everything a planner needs: tool calls, words, the end. `tariff` is what calls may cost now."""

    def __init__(
        self, journal: Journal, settings: TeachSettings, link: GatewayLink, watcher: Watcher, *, tariff: Tariff
    ) -> None:
        self.journal = journal
        self._newest = settings
        self.watcher = watcher
        self.prices = tariff.prices
        self._link = link
        self._tariff = tariff
        self._start = load_spending(journal.of("session")[0]["spending"])
        self._ledger_cost = ZERO
        # The most that one example has cost so far.
        self._dearest = ZERO
        self._unknown_calls = 0
        self._asked = 0
        self._steps: dict[str, _Step] = {}
        self._by_number: dict[int, _Step] = {}
        for entry in journal.entries:
            self._replay(entry)

    @property
    def id(self) -> str:
        """The id of the session."""
        return self.journal.session

    @property
    def settings(self) -> TeachSettings:
        """The settings that held when the planner's next call was made first; those of now where it was not made yet.

        A resume may change settings: what was planned before it is planned again as it was.
        """
        known = self._steps.get(_number_call(self._asked + 1))
        if known is None:
            return self._newest
        told = [entry for entry in self.journal.entries[: known.line] if entry["kind"] in ("session", "resumed")]
        return read_settings(told[-1]["settings"])

    @property
    def cost(self) -> Decimal:
        """What the session has cost so far, in USD."""
        return self._ledger_cost + self.planner_cost

    @property
    def planner_cost(self) -> Decimal:
        """What the planner's own calls cost; one whose end nobody saw counts with the most that it may have cost."""
        total = ZERO
        held: Decimal | None = None
        for entry in self.journal.entries:
            if entry["kind"] == "asking":
                total += held or ZERO
                held = Decimal(entry["bound_usd"])
            elif entry["kind"] in ("reply", "no_reply"):
                total += Decimal(entry["usd"])
                held = None
        return total + (held or ZERO)

    @property
    def left(self) -> Decimal | None:
        """What is left of the budget; None without one."""
        budget = self._newest.budget_usd
        return None if budget is None else max(ZERO, budget - self.cost)

    @property
    def steps_done(self) -> int:
        """How many steps the planner has taken in this run, replayed ones included."""
        return self._asked

    async def call(self, tool: str, arguments: Mapping[str, Any], *, key: str = "") -> Outcome:
        """Call a tool, or return what it gave before; `key` names the call (else: its number in the order of calls).

        Raises:
            TeachingEndError: the budget does not allow it, a scope is missing, or the gateway stayed away.
            PreconditionError: the journal is of a planner that asked for something else here.
        """
        self._asked += 1
        key = key or _number_call(self._asked)
        step = self._steps.get(key)
        if step is not None and (step.tool, step.arguments) != (tool, _plain(arguments)):
            raise PreconditionError(
                f"the journal of session {self.id} has {step.tool} as step {step.number}, and {tool} (or other "
                "arguments) is due now: it was begun by another version; start a new session"
            )
        if step is not None and step.outcome is not None:
            self.watcher.end(step.outcome, tool, cost=self.cost, replayed=True)
            return step.outcome
        if step is None:
            self.afford(self._bound(tool, arguments), tool)
            step = self._begin(tool, arguments, key)
        return await self._send(step)

    def _bound(self, tool: str, arguments: Mapping[str, Any]) -> Decimal | None:
        """Return what a call may cost: by prices and limits, later by what examples have cost, several times over."""
        bound = self._tariff.bound(tool, arguments)
        count = arguments.get("count")
        if bound and tool == "generate_training_data" and self._dearest and isinstance(count, int):
            return min(bound, SAFETY * count * self._dearest)
        return bound

    def afford(self, bound: Decimal | None, what: str) -> None:
        """Let a call pass that costs at most `bound` (None: not known).

        Raises:
            TeachingEndError: it could exceed the budget.
        """
        budget = self._newest.budget_usd
        if budget is None or bound == ZERO:
            return
        if self._unknown_calls:
            raise TeachingEndError("budget", f"{self._unknown_calls} calls of an unknown price were made: cost unknown")
        if bound is None:
            raise TeachingEndError("budget", f"the price of {what} is not known, so no budget can be kept")
        if self.cost + bound > budget:
            raise TeachingEndError(
                "budget",
                f"{show_usd(self.cost)} of {show_usd(budget)} are spent, and {what} may cost up to {show_usd(bound)}; "
                f"for more: --resume {self.id} --budget-usd N",
            )

    def finish(self, state: State, reason: str) -> None:
        """End the session here; returns when the user has resumed after just this end, for the planner to look again.

        Raises:
            TeachingEndError: the end.
        """
        resumed = max((entry["n"] for entry in self.journal.of("resumed")), default=0)
        before = [entry for entry in self.journal.of("end") if entry["n"] < resumed]
        if state in PASSABLE and any((entry["asked"], entry["state"]) == (self._asked, state) for entry in before):
            return
        raise TeachingEndError(state, reason)

    def knows(self, key: str) -> bool:
        """Say whether a call was begun before."""
        return key in self._steps

    def outcomes(self, tool: str) -> list[Outcome]:
        """Return what the calls of a tool gave, in order."""
        found = (self._by_number[number] for number in sorted(self._by_number))
        return [step.outcome for step in found if step.tool == tool and step.outcome is not None]

    def count_rounds(self) -> int:
        """Return how many rounds of training were finished."""
        return sum(outcome.ok for outcome in self.outcomes("train"))

    def say(self, text: str) -> None:
        """Tell the user why."""
        self.watcher.say(text)

    def _begin(self, tool: str, arguments: Mapping[str, Any], key: str) -> _Step:
        number = len(self._steps) + 1
        entry = self.journal.append(
            "intent",
            {
                "step": number,
                "key": key,
                "tool": tool,
                "arguments": _plain(arguments),
                "request_id": f"{self.id}-{number}",
            },
        )
        self._replay(entry)
        return self._steps[key]

    async def _send(self, step: _Step) -> Outcome:
        self.watcher.begin(step.number, step.tool, step.arguments)
        begun = time.monotonic()
        try:
            value = await self._link.call(
                step.tool,
                dict(step.arguments),
                request_id=f"{self.id}-{step.number}",
                progress=self.watcher.progress,
            )
            told: dict[str, Any] = {"value": value}
        except TeachingEndError:
            # Nobody knows what became of it: its result is still missing, and resuming asks again.
            raise
        except (ForbiddenError, UnauthenticatedError) as error:
            raise TeachingEndError("failed", error.message) from error
        except BudgetError as error:
            self._close_step(step, {"error_code": error.code, "error": error.message}, await self._read_ledger(), begun)
            raise TeachingEndError("budget", error.message) from error
        except ShammahError as error:
            told = {"error_code": error.code, "error": error.message}
        return self._close_step(step, told, await self._read_ledger(), begun)

    def _close_step(self, step: _Step, told: dict[str, Any], now: Spending, begun: float) -> Outcome:
        entry = self.journal.append(
            "result",
            {"step": step.number, **told, "seconds": time.monotonic() - begun, "spending": now.to_json()},
        )
        self._replay(entry)
        assert step.outcome is not None
        self.watcher.end(step.outcome, step.tool, cost=self.cost, replayed=False)
        return step.outcome

    async def _read_ledger(self) -> Spending:
        return read_spending(await self._link.read_status())

    def _replay(self, entry: Entry) -> None:
        if entry["kind"] == "intent":
            step = _Step(entry["n"], entry["step"], entry["tool"], entry["arguments"])
            self._steps[entry["key"]] = self._by_number[step.number] = step
        elif entry["kind"] == "result":
            outcome = Outcome(
                entry["step"], entry.get("value", {}), entry.get("error_code", ""), entry.get("error", "")
            )
            self._by_number[outcome.step].outcome = outcome
            now = load_spending(entry["spending"])
            before, self._ledger_cost = self._ledger_cost, now.since(self._start)
            count = self._by_number[outcome.step].arguments.get("count")
            if isinstance(count, int) and count > 0:
                self._dearest = max(self._dearest, (self._ledger_cost - before) / count)
            self._unknown_calls = now.unknown_calls - self._start.unknown_calls


def _number_call(number: int) -> str:
    return f"call {number}"


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as they come back from the journal."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(arguments)))
    return plain
