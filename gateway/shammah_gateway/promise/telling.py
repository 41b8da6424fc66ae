"""Tells the trainer, over the bus, which categories of the champion audits have withdrawn; also what the book knew."""

from __future__ import annotations

from shammah_chassis.bus import Bus
from shammah_chassis.releases import Release
from shammah_chassis.withdrawn import add_withdrawn

from shammah_gateway.promise.watch import PromiseWatch


class WithdrawalTeller:
    """Tells each withdrawal once; what the bus did not take is told at the next call."""

    def __init__(self, bus: Bus, watch: PromiseWatch) -> None:
        self._bus = bus
        self._watch = watch
        self._told = ("", frozenset[str]())

    async def tell(self, champion: Release) -> None:
        """Write what is withdrawn and was not told yet. Raises UnavailableError, ConflictError."""
        now = (champion.id, self._watch.withdrawn(champion))
        if now[1] and now != self._told:
            await add_withdrawn(self._bus, *now)
            self._told = now
