"""What broken rounds and releases that went leave behind is cleared, in both stores, and nothing that is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shammah_chassis.artifacts import ArtifactStore, open_store
from shammah_chassis.bus import Bus
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError, ConflictError, ShammahError, StorageFullError, UnknownReleaseError
from shammah_chassis.manifest import ROLES, Manifest, Role
from shammah_chassis.releases import Champion, Release, Wanted
from shammah_trainer import leftovers
from shammah_trainer.engine import TrainerEngine
from shammah_trainer.ledger import Ledger
from shammah_trainer.leftovers import clear_versions
from support.artifacts import make_release, make_version
from support.rounds import EXAM, TAUGHT, champion_of, teach
from support.trainer import run_round

Names = set[tuple[Role, str]]


@pytest.fixture(params=["dir", "nats"])
async def store(request: pytest.FixtureRequest, bus: Bus, tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    yield open_store(f"dir:{tmp_path / 'store'}" if request.param == "dir" else "nats:", bus)


@pytest.fixture
def all_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written a moment ago counts as old; clocks of bus and test may differ by a second."""
    monkeypatch.setattr(leftovers, "GRACE_SECONDS", -60.0)


async def held() -> None:
    """The lease is ours."""


async def publish_version(store: ArtifactStore, folder: Path, role: Role) -> str:
    manifest: Manifest = make_version(folder / role, role, content=f"{folder.name} {role}".encode())
    await store.publish_version(folder / role, manifest)
    return manifest.version


async def publish_whole(store: ArtifactStore, folder: Path, bus: Bus) -> Release:
    """Publish a release with its three versions and make it the champion."""
    named = {role: await publish_version(store, folder, role) for role in ROLES}
    release = make_release(**named)
    await store.publish_release(release)
    await bus.kv_create("champion", Champion(release.id).to_json())
    await bus.kv_create("wanted", Wanted((release.id,)).to_json())
    return release


def versions_of(release: Release) -> Names:
    return {(role, release.version_of(role)) for role in ROLES}


async def stored(store: ArtifactStore) -> Names:
    return {(found.role, found.version) for found in await store.list_versions()}


async def test_old_versions_that_no_release_names_go_and_the_others_stay(
    store: ArtifactStore, bus: Bus, tmp_path: Path, all_are_old: None
) -> None:
    assert await stored(store) == set()
    release = await publish_whole(store, tmp_path / "served", bus)
    # An older release that nobody asks for names a version too, as long as it is there.
    older = make_release(router=await publish_version(store, tmp_path / "older", "router"), now=1000.0)
    await store.publish_release(older)
    orphan = await publish_version(store, tmp_path / "broken", "generator")
    gone = await clear_versions(store, bus, hold_lease=held)
    assert [(found.role, found.version) for found in gone] == [("generator", orphan)]
    assert await stored(store) == versions_of(release) | {("router", older.router)}
    for role in ROLES:
        await store.fetch_version(role, release.version_of(role), tmp_path / "cache")
    await store.delete_release(older.id)
    assert [found.version for found in await clear_versions(store, bus, hold_lease=held)] == [older.router]


async def test_a_young_version_stays_as_its_release_may_be_on_its_way(
    store: ArtifactStore, bus: Bus, tmp_path: Path
) -> None:
    await publish_whole(store, tmp_path / "served", bus)
    orphan = await publish_version(store, tmp_path / "young", "generator")
    assert await clear_versions(store, bus, hold_lease=held) == []
    assert ("generator", orphan) in await stored(store)


async def test_a_version_whose_release_comes_after_the_listing_stays(
    store: ArtifactStore, bus: Bus, tmp_path: Path, all_are_old: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish_whole(store, tmp_path / "served", bus)
    late = await publish_version(store, tmp_path / "late", "router")
    listing = store.list_versions

    async def list_and_publish() -> object:
        found = await listing()
        await store.publish_release(make_release(router=late))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "list_versions", list_and_publish)
        assert await clear_versions(store, bus, hold_lease=held) == []
    assert ("router", late) in await stored(store)


@pytest.mark.parametrize("fault", ["unreadable", "wanted but not there", "lease lost"])
async def test_nothing_goes_while_nobody_can_say_what_is_needed(
    store: ArtifactStore, bus: Bus, tmp_path: Path, all_are_old: None, fault: str
) -> None:
    release = await publish_whole(store, tmp_path / "served", bus)
    await publish_version(store, tmp_path / "broken", "generator")
    before = await stored(store)
    lease, expected = held, ShammahError
    if fault == "lease lost":

        async def lost() -> None:
            raise ConflictError("another holds it")

        lease, expected = lost, ConflictError
    elif fault == "unreadable":
        await _damage_a_release(store, bus)
        expected = ArtifactError
    else:
        entry = await bus.kv_get("wanted")
        assert entry is not None
        missing = make_release().id
        await bus.kv_update("wanted", Wanted((release.id, missing), missing).to_json(), entry.revision)
        expected = UnknownReleaseError
    with pytest.raises(expected):
        await clear_versions(store, bus, hold_lease=lease)
    assert await stored(store) == before


async def _damage_a_release(store: ArtifactStore, bus: Bus) -> None:
    name = make_release().id
    if isinstance(store, DirectoryStore):
        (store.root / "releases" / f"{name}.json").write_bytes(b"\xff\xfe broken")
    else:
        bucket = await bus.jetstream.object_store("artifacts")
        await bucket.put(f"releases/{name}", b"\xff\xfe broken")


async def test_the_files_of_a_version_that_was_never_whole_go_from_the_object_store(
    bus: Bus, tmp_path: Path, all_are_old: None
) -> None:
    store = open_store("nats:", bus)
    release = await publish_whole(store, tmp_path / "served", bus)
    bucket = await bus.jetstream.object_store("artifacts")
    await bucket.put("files/generator/half/0123", b"weights whose manifest never came")
    assert ("generator", "half") in await stored(store)
    await clear_versions(store, bus, hold_lease=held)
    assert await stored(store) == versions_of(release)


async def test_a_round_clears_what_a_broken_publication_left_and_forgets_the_rollouts_of_its_generator(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, all_are_old: None
) -> None:
    store = DirectoryStore(tmp_path / "store")
    await teach(bus, engine, EXAM, TAUGHT[:100])
    zero = await store.get_release((await champion_of(bus)).release)

    async def refuse(*_: object) -> None:
        raise StorageFullError("no room for the release")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "publish_release", refuse)
        assert (await run_round(engine)).state == "failed"
    left = await stored(store) - versions_of(zero)
    assert {role for role, _ in left} == set(ROLES)
    (broken,) = (version for role, version in left if role == "generator")
    ledger = Ledger(tmp_path / "trainer" / "ledger.sqlite")
    assert broken in _generators(ledger)
    # The same rows would make the same generator again.
    await teach(bus, engine, TAUGHT[100:])
    job = await run_round(engine)
    made = await store.get_release(job.id)
    assert made.generator != broken
    assert await stored(store) == versions_of(zero) | versions_of(made)
    assert _generators(ledger) == {zero.generator, made.generator}
    ledger.close()


async def test_what_cannot_be_cleared_ends_no_round(
    engine: TrainerEngine, bus: Bus, tmp_path: Path, all_are_old: None
) -> None:
    store = DirectoryStore(tmp_path / "store")
    await teach(bus, engine, EXAM, TAUGHT)
    orphan = await publish_version(store, tmp_path / "broken", "generator")
    await _damage_a_release(store, bus)
    assert (await run_round(engine)).result["verdict"] == "promote"
    assert ("generator", orphan) in await stored(store)


def _generators(ledger: Ledger) -> set[str]:
    return {row[0] for row in ledger.fetch("SELECT DISTINCT generator FROM rollouts")}
