"""Which categories of a release are withdrawn, as audits broke their promise: KV `withdrawn.<release>`, by any gateway.

A promise that is broken stays broken for as long as there is the release, so the key only ever grows: what several
gateways found is joined. It does not know how a promise is watched, nor what follows from a broken one.
"""

from __future__ import annotations

import json
from collections.abc import Set
from typing import TYPE_CHECKING

from shammah_chassis.errors import ArtifactError, ConflictError

if TYPE_CHECKING:
    from shammah_chassis.bus import Bus

_ATTEMPTS = 10


async def read_withdrawn(bus: Bus, release: str) -> frozenset[str]:
    """Return the withdrawn categories of a release.

    Raises:
        ArtifactError: the key can't be read. UnavailableError: the bus is away.
    """
    entry = await bus.kv_get(_key_of(release))
    return _parse(entry.value) if entry else frozenset()


async def add_withdrawn(bus: Bus, release: str, categories: Set[str]) -> None:
    """Add to the withdrawn categories of a release; what is no list of names is replaced.

    Raises:
        ConflictError: the key changed at each of ten attempts. UnavailableError: the bus is away.
    """
    key = _key_of(release)
    for _ in range(_ATTEMPTS):
        entry = await bus.kv_get(key)
        try:
            known = _parse(entry.value) if entry else frozenset()
        except ArtifactError:
            known = frozenset()
        if categories <= known:
            return
        text = json.dumps({"categories": sorted(known | categories)})
        try:
            if entry is None:
                await bus.kv_create(key, text)
            else:
                await bus.kv_update(key, text, entry.revision)
        except ConflictError:
            continue
        return
    raise ConflictError(f"KV {key} changed at every attempt to add to it")


def _key_of(release: str) -> str:
    return f"withdrawn.{release}"


def _parse(text: str) -> frozenset[str]:
    try:
        names = json.loads(text)["categories"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("no list of names")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"KV withdrawn can't be read: {error}") from error
    return frozenset(names)
