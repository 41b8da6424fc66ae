"""The two keys of desired state, read and changed by compare-and-set. It does not know why they change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from shammah_chassis.bus import Bus
from shammah_chassis.errors import ConflictError, PreconditionError
from shammah_chassis.releases import Champion, Wanted, parse_champion, parse_wanted

CHAMPION = "champion"
WANTED = "wanted"
# Others can only win so often in a row: each win is a switch of releases.
CAS_ATTEMPTS = 20


class DesiredKeys:
    """KV `champion` and `wanted`; a change is a pure function of the value, tried again when somebody else wins."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read_champion(self) -> Champion | None:
        """Return the champion; None before release 0."""
        entry = await self._bus.kv_get(CHAMPION)
        return parse_champion(entry.value) if entry else None

    async def require_champion(self) -> Champion:
        """Return the champion; PreconditionError before release 0."""
        champion = await self.read_champion()
        if champion is None:
            raise PreconditionError("there is no champion yet: the trainer has not made release 0")
        return champion

    async def read_wanted(self) -> Wanted:
        """Return what the pods should hold; nothing when nobody said."""
        entry = await self._bus.kv_get(WANTED)
        return parse_wanted(entry.value) if entry else Wanted(())

    async def change_champion(self, change: Callable[[Champion], Champion]) -> Champion:
        """Apply a change and return the champion after it; raises ConflictError, PreconditionError."""
        for _ in range(CAS_ATTEMPTS):
            entry = await self._bus.kv_get(CHAMPION)
            if entry is None:
                return await self.require_champion()
            now = parse_champion(entry.value)
            after = change(now)
            if after == now:
                return now
            try:
                await self._bus.kv_update(CHAMPION, after.to_json(), entry.revision)
            except ConflictError:
                continue
            return after
        raise ConflictError("the champion could not be changed: others kept changing it")

    async def change_wanted(self, change: Callable[[Wanted], Wanted]) -> Wanted:
        """Apply a change and return what is wanted after it; raises ConflictError."""
        for _ in range(CAS_ATTEMPTS):
            entry = await self._bus.kv_get(WANTED)
            now = parse_wanted(entry.value) if entry else Wanted(())
            after = change(now)
            if after == now:
                return now
            try:
                if entry is None:
                    await self._bus.kv_create(WANTED, after.to_json())
                else:
                    await self._bus.kv_update(WANTED, after.to_json(), entry.revision)
            except ConflictError:
                continue
            return after
        raise ConflictError("the wanted releases could not be changed: others kept changing them")

    def watch(self, key: str) -> AsyncIterator[object]:
        """Yield once now and at each change of a key."""
        return self._bus.kv_watch(key)
