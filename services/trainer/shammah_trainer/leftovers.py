"""What broken rounds, and releases that went, leave behind: versions in the store, rollouts in the ledger.

A version goes only while the lease is held, so that no round publishes meanwhile, and only where every release that
is there or asked for can be read: none of them names it. It knows no models; which releases stay is the gateway's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from shammah_chassis.artifacts import ArtifactStore, StoredVersion
from shammah_chassis.errors import UnknownReleaseError
from shammah_chassis.manifest import ROLES
from shammah_chassis.releases import Release

from shammah_trainer.ledger import Ledger
from shammah_trainer.publishing import KeyValue, read_champion, read_wanted

GRACE_SECONDS = 3600.0
"""What is younger stays: somebody may put a release there without the lease, as by copying one into the folder."""
_LOG = logging.getLogger(__name__)


async def clear_versions(
    store: ArtifactStore, bus: KeyValue, *, hold_lease: Callable[[], Awaitable[None]]
) -> list[StoredVersion]:
    """Remove old versions that no release names; return them.

    Raises:
        ArtifactError: a release can't be read: what it names is not known, so nothing is removed.
        UnknownReleaseError: likewise, a release that serves or is wanted is not there.
        ConflictError: the lease was lost; nothing more is removed.
    """
    before = time.time() - GRACE_SECONDS
    # Versions are listed before releases: of one that is published meanwhile, the release is seen too.
    old = [found for found in await store.list_versions() if found.written_at < before]
    if not old:
        return []
    releases = await read_releases(store)
    for name in await _named(bus) - {release.id for release in releases}:
        releases.append(await store.get_release(name))
    used = {(role, release.version_of(role)) for release in releases for role in ROLES}
    gone = [found for found in old if (found.role, found.version) not in used]
    for found in gone:
        await hold_lease()
        await store.delete_version(found.role, found.version)
        _LOG.info("removed %s %s from the store: no release names it", found.role, found.version)
    return gone


async def read_releases(store: ArtifactStore) -> list[Release]:
    """Return the releases of the store; ArtifactError when one can't be read."""
    found = []
    for name in await store.list_releases():
        try:
            found.append(await store.get_release(name))
        except UnknownReleaseError:
            continue  # removed since it was listed
    return found


def clear_rollouts(ledger: Ledger, generators: set[str]) -> int:
    """Remove the rollouts of all generators but these; return how many there were.

    Only after a round that ended well: one that will be repeated may find its own again, of a generator not yet there.
    """
    known = {row[0] for row in ledger.fetch("SELECT DISTINCT generator FROM rollouts")}
    removed = 0
    with ledger.transaction():
        for generator in sorted(known - generators):
            removed += int(ledger.fetch("SELECT COUNT(*) FROM rollouts WHERE generator = ?", (generator,))[0][0])
            ledger.execute("DELETE FROM rollouts WHERE generator = ?", (generator,))
    if removed:
        _LOG.info("removed %d rollouts from the ledger: no release has their generators", removed)
    return removed


async def _named(bus: KeyValue) -> set[str]:
    """Return the ids of the releases that serve, are pinned or wanted, or are on trial; others may be gone by now."""
    champion, wanted = await read_champion(bus), await read_wanted(bus)
    found = {champion.release, *champion.pinned} if champion else set()
    return found | {*wanted.releases, wanted.candidate} - {""} if wanted else found
