"""What a call of generate_training_data is to make where it names no count or difficulty: what was planned.

The plan is that of the newest analysis (`teaching_plan`): the count that it recommends less what came since, and the
difficulty by its accuracy. It asks no teacher and checks no category.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shammah_gateway.teaching_plan import LEAST, MOST, choose_difficulty
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.schemas import GenerateInput

# Where no analysis has looked at the category.
UNPLANNED = 20


@dataclass(frozen=True, slots=True)
class Aim:
    """How many examples (10 to 100), and how hard."""

    count: int
    difficulty: str


async def take_aim(context: ToolContext, asked: GenerateInput) -> Aim:
    """Return what the caller named, and what was planned for the rest.

    Raises:
        UnavailableError: the trainer, which counts what came since, is away.
    """
    planned = find_planned(context, asked.category)
    count = asked.count
    if count is None:
        count = UNPLANNED if planned is None else await _count_left(context, planned)
    accuracy = None if planned is None else float(planned["accuracy"])
    return Aim(count, asked.difficulty or choose_difficulty(accuracy))


def find_planned(context: ToolContext, category: str) -> Mapping[str, Any] | None:
    """Return what the newest analysis that tested a category says of it; None when there is none."""
    for analysis in context.jobs.results("analyze_model"):
        for row in analysis.get("categories", []):
            if row["category"] == category:
                return dict(row)
    return None


async def _count_left(context: ToolContext, planned: Mapping[str, Any]) -> int:
    """Return what is left of a plan, as far as one call takes it: it is spent with every row that comes."""
    rows = {row.category: row.train for row in (await context.trainer.status()).categories}
    # A result that an earlier version kept does not say what waited then.
    known = int(planned["trained_examples"]) + int(planned.get("queued_examples", 0))
    since = max(0, rows.get(planned["category"], 0) - known)
    return min(MOST, max(LEAST, int(planned["recommended_examples"]) - since))
