"""A steady trickle of users during a round: what was served, what failed, and by which release.

One query after the other with a pause between; knows only the Ask call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from shammah_chassis.errors import ShammahError

from shammah_gateway.cli.ask import AskOptions, ask
from shammah_gateway.cli.client import GatewayClient


@dataclass(slots=True)
class Traffic:
    """Outcomes so far: (Unix time, release) of each answer, and the errors."""

    served: list[tuple[float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def served_between(self, begin: float, end: float) -> int:
        """Count the answers whose time lies in [begin, end], Unix seconds."""
        return sum(begin <= moment <= end for moment, _ in self.served)


async def trickle(
    client: GatewayClient, queries: Sequence[str], traffic: Traffic, *, stop: asyncio.Event, pause_seconds: float
) -> None:
    """Ask one query after the other until `stop` is set; errors are noted, never raised."""
    position = 0
    while not stop.is_set():
        query = queries[position % len(queries)]
        position += 1
        try:
            answer = await ask(client, [("user", query)], AskOptions(no_learn=True))
            traffic.served.append((time.time(), answer.versions.release))
        except ShammahError as error:
            traffic.failed.append(f"{error.code}: {error.message}")
        try:
            await asyncio.wait_for(stop.wait(), pause_seconds)
        except TimeoutError:
            continue
