"""How unsure the student is of queries that it was never asked: its router says so before any work is done.

It knows the champion's router and no pool.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from shammah_chassis.errors import DeadlineError, ShammahError

from shammah_gateway.teachers.ports import Doubts
from shammah_gateway.tools.context import ToolContext

_TOGETHER = 8  # what is asked here must leave the router room for traffic
_log = logging.getLogger(__name__)


def make_doubts(context: ToolContext) -> Doubts:
    """Return what asks the champion's router: 1 - P(a local answer would be good) of each query, once of each.

    None instead where no release serves, or the router can't be asked in the time of one call of a tool: then nobody
    knows.
    """
    known: dict[str, float] = {}

    async def ask(queries: Sequence[str]) -> list[float] | None:
        release = context.releases.champion()
        if release is None:
            return None
        gate = asyncio.Semaphore(_TOGETHER)

        async def ask_one(query: str) -> None:
            async with gate:
                routed = await context.roles.route(release.id, query, timeout=context.role_timeout_seconds)
            known[query] = 1.0 - routed.local_probability

        try:
            async with asyncio.timeout(context.role_timeout_seconds):
                ends = await asyncio.gather(
                    *(ask_one(query) for query in queries if query not in known), return_exceptions=True
                )
        except TimeoutError:
            ends = [DeadlineError("the router took too long")]
        for end in ends:
            if isinstance(end, ShammahError):
                _log.info("nobody knows how unsure the student is: %s", end.message)
                return None
            if end is not None:
                raise end
        return [known[query] for query in queries]

    return ask
