"""Counts of users' traffic by caller, for the audit log: one line a minute and caller, not one a query.

Adding is a sum in memory. It does not know what is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shammah_gateway.consent.audit import AuditLog


@dataclass(slots=True)
class _Sum:
    count: int = 0
    size: int = 0


@dataclass(slots=True)
class TrafficCounts:
    """What each caller did since the last `flush`."""

    clock: Callable[[], float] = time.time
    _sums: dict[str, dict[str, _Sum]] = field(default_factory=dict)
    _since: float = 0.0

    def add(self, caller: str, kind: str, *, count: int = 1, size: int = 0) -> None:
        """Count something of a kind ("answered local", "sent api.anthropic.com"); `size` in bytes."""
        kinds = self._sums.get(caller)
        if kinds is None:
            if not self._sums:
                self._since = self.clock()
            kinds = self._sums[caller] = {}
        total = kinds.get(kind)
        if total is None:
            total = kinds[kind] = _Sum()
        total.count += count
        total.size += size

    def flush(self, log: AuditLog) -> None:
        """Write a line for each caller and begin again at zero."""
        sums, self._sums = self._sums, {}
        for caller, kinds in sums.items():
            counts = {
                kind: {"count": total.count, **({"bytes": total.size} if total.size else {})}
                for kind, total in kinds.items()
            }
            log.jot("traffic", caller=caller, what={"since": round(self._since, 3), "counts": counts})
