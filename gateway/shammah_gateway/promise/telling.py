"""Tells trainer and other gateways, over the bus, what audits withdrew of a release, and hears what those withdrew."""

from __future__ import annotations

from shammah_chassis.bus import Bus
from shammah_chassis.releases import Release
from shammah_chassis.withdrawn import add_withdrawn, read_withdrawn

from shammah_gateway.promise.watch import PromiseWatch


class WithdrawalTeller:
    """Tells each withdrawal once; what the bus did not take is told at the next call. It never takes one back."""

    def __init__(self, bus: Bus, watch: PromiseWatch) -> None:
        self._bus = bus
        self._watch = watch
        self._told = ("", frozenset[str]())

    async def tell(self, champion: Release) -> None:
        """Write what was not told yet, also what the book knew. Raises UnavailableError, ConflictError."""
        now = (champion.id, self._watch.withdrawn(champion))
        if now[1] and now != self._told:
            await add_withdrawn(self._bus, *now)
            self._told = now

    async def hear(self, release: Release) -> None:
        """Have the watch withdraw what other gateways did. Raises UnavailableError; ArtifactError: it can't be read."""
        self._watch.note_elsewhere(release, await read_withdrawn(self._bus, release.id))
