"""A lease on one key: at most one holder at a time, with a fencing token that grows.

The holder's name and the end of the lease are the value of the key; every change is a compare-and-set. The clocks of
the hosts must agree within a part of `ttl_seconds`; against a holder that sleeps past its end only the token helps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shammah_chassis.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from shammah_chassis.bus import Bus, KvEntry


class Lease:
    """One holder's view of a lease. `holder` names the process; the same name takes its own lease again at once."""

    def __init__(
        self,
        bus: Bus,
        key: str = "lease_trainer",
        *,
        holder: str,
        ttl_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not holder or ttl_seconds <= 0:
            raise InvalidInputError("a lease needs a holder's name and a time to live above zero")
        self._bus = bus
        self._key = key
        self._holder = holder
        self._ttl = ttl_seconds
        self._clock = clock
        self._revision = 0
        self._token = 0

    @property
    def token(self) -> int:
        """The fencing token of this holding, 0 when not held. Each later holding has a greater one."""
        return self._token

    async def acquire(self) -> int:
        """Take the lease and return its fencing token.

        Raises:
            ConflictError: another holds it and it has not expired (the message says who and for how long), or
                another was faster.
        """
        entry = await self._bus.kv_get(self._key)
        if entry is None:
            self._revision = await self._bus.kv_create(self._key, self._value(self._ttl))
        else:
            self._refuse_if_held(entry)
            self._revision = await self._bus.kv_update(self._key, self._value(self._ttl), entry.revision)
        self._token = self._revision
        return self._token

    async def renew(self) -> None:
        """Hold it for another `ttl_seconds`; the fencing token stays.

        Raises:
            ConflictError: it is not held by us any more; stop what it protects.
        """
        if not self._token:
            raise ConflictError(f"{self._key}: not held by {self._holder}")
        try:
            self._revision = await self._bus.kv_update(self._key, self._value(self._ttl), self._revision)
        except ConflictError:
            self._token = 0
            raise

    async def release(self) -> None:
        """Give it back, so that another may take it at once; no error when it is not ours any more."""
        if not self._token:
            return
        self._token = 0
        try:
            await self._bus.kv_update(self._key, self._value(0.0), self._revision)
        except ConflictError:
            return

    def _value(self, seconds: float) -> str:
        return json.dumps({"holder": self._holder, "expires_at": self._clock() + seconds})

    def _refuse_if_held(self, entry: KvEntry) -> None:
        holder, left = _read(entry.value)
        left -= self._clock()
        if left > 0 and holder != self._holder:
            raise ConflictError(f"{self._key} is held by {holder} for {left:.1f} s more", retry_after_seconds=left)


def _read(value: str) -> tuple[str, float]:
    """Return holder and end of a lease; what can't be read counts as expired, so that it can be taken."""
    try:
        raw = json.loads(value)
        return str(raw["holder"]), float(raw["expires_at"])
    except (ValueError, KeyError, TypeError):
        return "", 0.0
