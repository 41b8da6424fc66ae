"""Tool `query_local_model`: what the student says to a query, and how its validator judges that."""

from __future__ import annotations

import time
from typing import Literal, cast

from shammah_chassis.errors import UnavailableError
from shammah_chassis.examples import Message
from shammah_chassis.releases import Release
from shammah_chassis.scopes import Caller

from shammah_gateway.checks import check_query
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.schemas import QueryInput, QueryResult
from shammah_gateway.values import Query


async def query_local_model(context: ToolContext, caller: Caller, asked: QueryInput) -> QueryResult:
    """Run the student and its validator on the champion.

    Raises:
        InvalidInputError, TooLongError: as `check_query`.
        UnavailableError: no release serves yet, or a role is away; the message says why.
    """
    release = require_champion(context)
    query = check_query(
        Query(
            messages=(Message("user", asked.query),),
            max_tokens=asked.max_tokens,
            role_timeout_seconds=context.role_timeout_seconds,
            user=caller.name,
        )
    )
    started = time.monotonic()
    trial = await context.cascade.student.try_query(query, release, run_anyway=True)
    if trial.attempt is None or trial.judged is None:
        raise UnavailableError(f"the student can't answer now: {trial.reason}")
    judged = trial.judged
    return QueryResult(
        response=trial.attempt.text,
        quality=judged.quality,
        uncertainty=judged.uncertainty,
        coherence=judged.coherence,
        on_topic=judged.on_topic,
        hallucination_risk=cast("Literal['low', 'medium', 'high']", judged.risk or "high"),
        category=trial.category,
        release=release.id,
        latency_seconds=time.monotonic() - started,
        would_serve=trial.serve,
    )


def require_champion(context: ToolContext) -> Release:
    """Return the release that serves; UnavailableError while there is none."""
    release = context.releases.champion()
    if release is None:
        raise UnavailableError("no release serves yet: not every role holds the champion")
    return release
