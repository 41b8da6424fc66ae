"""What stays in the store: the last five distinct releases that served, pins, what is wanted, and the newest five.

A version goes only with a release that went, and only if no release that stays uses it: so nothing that a trainer is
publishing right now (versions first, release last) can be taken away. It does not decide what serves.
"""

from __future__ import annotations

import logging
from collections import Counter

from shammah_chassis.artifacts import ArtifactStore
from shammah_chassis.errors import ArtifactError, NotFoundError
from shammah_chassis.manifest import ROLES, Role
from shammah_chassis.releases import Champion, Release, Wanted

from shammah_gateway.transitions import KEPT

CHECKPOINTS = 20
"""So many of a release are kept: one is taken every 100 queries, for as long as it serves."""
_log = logging.getLogger(__name__)


def kept_releases(stored: list[str], champion: Champion, wanted: Wanted) -> set[str]:
    """Return which of the stored ids (newest first) stay.

    The newest five after the champion stay as well: a held release can still be promoted by hand, and one that was
    published a moment ago may not be in `wanted` yet.
    """
    named = (champion.release, *champion.previous[:KEPT], *champion.pinned, *wanted.releases, wanted.candidate)
    newer = [name for name in stored if name > champion.release]
    return {name for name in stored if name in named} | set(newer[:KEPT])


async def collect_garbage(store: ArtifactStore, champion: Champion, wanted: Wanted) -> list[str]:
    """Delete what need not stay; returns the ids of the releases that went. Raises what the store raises.

    A release that can't be read stays for people to look at, and must not keep the others from going.
    """
    stored = await store.list_releases()
    keep = kept_releases(stored, champion, wanted)
    releases: dict[str, Release] = {}
    for name in stored:
        try:
            releases[name] = await store.get_release(name)
        except (ArtifactError, NotFoundError) as error:
            _log.warning("release %s stays, it can't be read: %s", name, error.message)
    used = {(role, releases[name].version_of(role)) for name in keep & releases.keys() for role in ROLES}
    gone = [name for name in releases if name not in keep]
    for name in gone:
        await store.delete_release(name)
    unused: set[tuple[Role, str]] = {(role, releases[name].version_of(role)) for name in gone for role in ROLES}
    # What an unreadable release that is kept uses, nobody knows.
    for role, version in sorted(unused - used) if keep <= releases.keys() else ():
        await store.delete_version(role, version)
    await _clear_checkpoints(store, keep)
    if gone:
        _log.info("removed %d releases from the store: %s", len(gone), ", ".join(gone))
    return gone


async def _clear_checkpoints(store: ArtifactStore, keep: set[str]) -> None:
    """Keep the newest checkpoints of each release that stays (they come newest first)."""
    counts: Counter[str] = Counter()
    for checkpoint in await store.list_checkpoints():
        counts[checkpoint.release] += 1
        if checkpoint.release not in keep or counts[checkpoint.release] > CHECKPOINTS:
            await store.delete_checkpoint(checkpoint.id)
