"""What a session has cost and what its next call may cost at most, in USD. It books nothing and decides nothing.

The cost is read off the gateway's ledger (teaching, comparing, judging; not users' answers and audits) as the rise
since the session began, plus the planner's own calls. Others who teach at the same time are in the same sum.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from shammah.v1 import gateway_pb2

from shammah_gateway.agreement import GROUP
from shammah_gateway.money.prices import OVERRIDE_SETTING, PriceTable, load_prices
from shammah_gateway.money.usage import bound_usage
from shammah_gateway.teachers.base import MAX_DIRECT
from shammah_gateway.teachers.ports import EXCLUDED_BYTES, FORM_BYTES, Wish
from shammah_gateway.teaching_plan import MOST
from shammah_gateway.tools.making import MORE_ASKS

ZERO = Decimal(0)
# Purposes of the ledger that are no teaching: users and the watch over the promise pay for them anyway.
_OTHERS = frozenset({"answer", "audit"})
# Instructions and samples of a wish, in bytes: more than they have been seen to take.
WISH_BYTES = 16_384
# The teacher's answer that a comparison asks for.
COMPARE_TOKENS = 1024
# A token of text or JSON stands for more than three bytes; the gateway's own caps count one.
TOKEN_BYTES = 2
# Room for the second answers to a group of examples (see `agreement`).
ANSWER_BYTES, ANSWER_TOKENS = 16_384, 2_000 + 300 * GROUP
# A judge's verdict is a sentence; the most that it is allowed would make every budget look too small.
VERDICT_TOKENS = 300
# From the second call on: as much as examples have cost in this session, so many times over.
SAFETY = 4


@dataclass(frozen=True, slots=True)
class Spending:
    """Sums of the gateway's ledger: USD for learning, USD of calls whose end nobody saw, calls of unknown price."""

    usd: Decimal = ZERO
    unsettled: Decimal = ZERO
    unknown_calls: int = 0

    def since(self, start: Spending) -> Decimal:
        """Return what was spent, or may have been, since `start`."""
        return max(ZERO, self.usd - start.usd) + max(ZERO, self.unsettled - start.unsettled)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"usd": str(self.usd), "unsettled": str(self.unsettled), "unknown_calls": self.unknown_calls}


def read_spending(status: gateway_pb2.GetStatusResponse) -> Spending:
    """Return the sums of a status."""
    rows = [row for row in status.money.spent if row.purpose not in _OTHERS]
    return Spending(
        usd=sum((Decimal(row.usd or "0") for row in rows), ZERO),
        unsettled=Decimal(status.money.unsettled_usd or "0"),
        unknown_calls=sum(row.unknown_calls for row in rows),
    )


def load_spending(raw: Mapping[str, Any]) -> Spending:
    """Read what `to_json` wrote."""
    return Spending(Decimal(raw["usd"]), Decimal(raw["unsettled"]), int(raw["unknown_calls"]))


def read_teacher(status: gateway_pb2.GetStatusResponse) -> str:
    """Return the name of the gateway's teacher, "" when it has none."""
    for part in status.parts:
        if part.name == "teacher":
            name, colon, _ = part.detail.partition(":")
            return name if colon else ""
    return ""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What calls of the gateway's teacher may cost: its model ("" when it costs nothing) and the price table."""

    model: str
    prices: PriceTable

    def bound(self, tool: str, arguments: Mapping[str, Any]) -> Decimal | None:
        """Return the most that a tool call may cost; None when that is not known."""
        if not self.model or arguments.get("job") or arguments.get("cancel"):
            return ZERO
        size = len(str(arguments.get("query", "")).encode()) + len(str(arguments.get("focus", "")).encode())
        if tool == "generate_training_data" and not arguments.get("examples"):
            return self._bound_examples(int(arguments.get("count") or MOST), size)
        if tool == "compare_responses":
            asked = ZERO if arguments.get("teacher_response") else self._price(size, COMPARE_TOKENS)
            judged = self._price(FORM_BYTES + 2 * size, VERDICT_TOKENS)
            return None if asked is None or judged is None else asked + judged
        return ZERO

    def _bound_examples(self, count: int, size: int) -> Decimal | None:
        """Return the most for examples: the asks for them, second answers to each, and verdicts on free text."""
        asks = -(-count // MAX_DIRECT) + MORE_ASKS
        room = Wish(category="", count=min(count, MAX_DIRECT)).max_tokens
        made = self._price(FORM_BYTES + EXCLUDED_BYTES + WISH_BYTES + size, room)
        answered = self._price(FORM_BYTES + ANSWER_BYTES, ANSWER_TOKENS)
        judged = self._price(FORM_BYTES, VERDICT_TOKENS)
        if made is None or answered is None or judged is None:
            return None
        return asks * made + -(-count // GROUP) * answered + count * judged

    def _price(self, prompt_bytes: int, tokens: int) -> Decimal | None:
        return self.prices.price(self.model, bound_usage(prompt_bytes // TOKEN_BYTES, tokens), datetime.now(UTC).date())


def read_tariff(status: gateway_pb2.GetStatusResponse) -> Tariff:
    """Return the tariff of a gateway: its savings are counted against the model that it teaches with.

    A prices file of the user's own is found by the setting of the gateway, where it is set for this process too.
    """
    named = os.environ.get(OVERRIDE_SETTING, "")
    free = read_teacher(status) in ("", "recorded")
    return Tariff("" if free else status.money.baseline_model, load_prices(Path(named) if named else None))
