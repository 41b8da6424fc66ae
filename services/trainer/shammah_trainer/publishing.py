"""What a round hands to the world: manifests, release, checkpoint, and the wish that every pod should hold it.

It knows the artifact store and the two keys of the bus, no training.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shammah_chassis.artifacts import ArtifactStore
from shammah_chassis.bus import KvEntry
from shammah_chassis.checkpoints import Checkpoint
from shammah_chassis.errors import ConflictError, UnknownReleaseError
from shammah_chassis.manifest import MANIFEST_NAME, Manifest, Role, describe_files, version_name
from shammah_chassis.releases import Champion, Release, Wanted, parse_champion, parse_wanted
from shammah_chassis.ulid import new_ulid

_TRIES = 10


class KeyValue(Protocol):
    """The part of the bus that this module needs."""

    async def kv_get(self, key: str) -> KvEntry | None:
        """Return the value of a key, or None."""

    async def kv_create(self, key: str, value: str) -> int:
        """Create a key; ConflictError when it is there."""

    async def kv_update(self, key: str, value: str, revision: int) -> int:
        """Replace the value of `revision`; ConflictError when another one is there."""


@dataclass(frozen=True, slots=True)
class Version:
    """One role's version on the local disk."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a manifest says beside the files: the engine's config, labels, and how the version came about."""

    config: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    hyper: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    position: int = 0


def make_version(role: Role, folder: Path, *, parent: Manifest | None, about: Description) -> Version:
    """Describe the files of a folder as a version and write its `manifest.json`."""
    version = describe_version(role, folder, parent=parent, about=about)
    write_manifest(version)
    return version


def write_manifest(version: Version) -> None:
    """Write `manifest.json` into the folder: from now on it counts as a whole version."""
    (version.folder / MANIFEST_NAME).write_text(version.manifest.to_json(), "utf-8")


def describe_version(role: Role, folder: Path, *, parent: Manifest | None, about: Description) -> Version:
    """Return the files of a folder as a version whose manifest is yet to be written."""
    files = describe_files(folder)
    manifest = Manifest(
        role=role,
        version=version_name(role, files),
        parent=parent.version if parent else "",
        step=parent.step + 1 if parent else 0,
        created_at=time.time(),
        config=dict(about.config),
        files=files,
        position=about.position,
        labels=about.labels,
        hyper=dict(about.hyper),
        metrics=dict(about.metrics),
        provenance=dict(about.provenance),
    )
    return Version(folder, manifest)


async def publish(
    store: ArtifactStore,
    release: Release,
    versions: Mapping[Role, Version],
    *,
    check_lease: Callable[[], Awaitable[None]],
) -> None:
    """Store the version files, then the release: whoever sees the release finds its files. Repeating is no error.

    Raises:
        StorageFullError: no space; the release is not there, the champion keeps serving.
        ConflictError: another trainer holds the lease now, or held it for so long that a version was cleared.
    """
    for version in versions.values():
        await store.publish_version(version.folder, version.manifest)
    # The files are inert; from the release on it counts who is allowed to speak.
    await check_lease()
    # Who held the lease while this one slept may have cleared them; from now on nobody does.
    stored = {(found.role, found.version) for found in await store.list_versions()}
    for role, version in versions.items():
        if (role, version.manifest.version) not in stored:
            raise ConflictError(f"{role} {version.manifest.version} was cleared before its release was there")
    await store.publish_release(release)


async def has_release(store: ArtifactStore, release_id: str) -> bool:
    """Say whether the store has a release."""
    try:
        await store.get_release(release_id)
    except UnknownReleaseError:
        return False
    return True


async def publish_checkpoint(
    store: ArtifactStore, release: Release, *, metrics: Mapping[str, Any], reason: str
) -> None:
    """Store a checkpoint of the release that serves, before something changes."""
    await store.publish_checkpoint(
        Checkpoint(
            id=new_ulid(),
            release=release.id,
            position=release.position,
            queries=0,
            metrics=dict(metrics),
            created_at=time.time(),
            reason=reason,
        )
    )


async def read_champion(bus: KeyValue) -> Champion | None:
    """Return KV `champion`, or None before the first start."""
    entry = await bus.kv_get("champion")
    return parse_champion(entry.value) if entry else None


async def read_wanted(bus: KeyValue) -> Wanted | None:
    """Return KV `wanted`, or None before the first start."""
    entry = await bus.kv_get("wanted")
    return parse_wanted(entry.value) if entry else None


async def propose_candidate(bus: KeyValue, release_id: str) -> None:
    """Add a release to KV `wanted` as the candidate, by compare-and-set; already there is no error.

    Raises:
        ConflictError: the key changed at each of ten attempts.
    """
    for _ in range(_TRIES):
        entry = await bus.kv_get("wanted")
        try:
            if entry is None:
                await bus.kv_create("wanted", Wanted((release_id,), release_id).to_json())
                return
            wanted = parse_wanted(entry.value)
            if wanted.candidate == release_id:
                return
            releases = tuple(dict.fromkeys((*wanted.releases, release_id)))
            await bus.kv_update("wanted", Wanted(releases, release_id).to_json(), entry.revision)
            return
        except ConflictError:
            continue
    raise ConflictError("KV wanted changed at every attempt to propose a candidate")


async def write_first_champion(bus: KeyValue, release_id: str) -> None:
    """Make a release the champion and the only one wanted, where there is none yet; another's win is accepted."""
    for key, value in (
        ("wanted", Wanted((release_id,)).to_json()),
        ("champion", Champion(release_id, promoted_at=time.time(), reason="release 0").to_json()),
    ):
        if await bus.kv_get(key) is None:
            try:
                await bus.kv_create(key, value)
            except ConflictError:
                continue
