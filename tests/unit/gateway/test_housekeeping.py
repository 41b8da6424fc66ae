"""What stays in the store, and that looking after it never ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from shammah_chassis.checkpoints import Checkpoint
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError, UnavailableError
from shammah_chassis.releases import Champion, Release, Wanted
from shammah_chassis.ulid import new_ulid
from shammah_gateway import housekeeping
from shammah_gateway.changes import Changes
from shammah_gateway.housekeeping import Housekeeper
from shammah_gateway.monitor import Monitor
from shammah_gateway.retention import CHECKPOINTS, collect_garbage
from support.gateway import make_release


class Teller:
    """Notes of which champion it shall tell and of what it shall hear, and fails the time that is given."""

    def __init__(self, fails_at: int = 0) -> None:
        self.told: list[str] = []
        self.heard: list[str] = []
        self._fails_at = fails_at

    async def tell(self, champion: Release) -> None:
        self.told.append(champion.id)
        if len(self.told) == self._fails_at:
            raise UnavailableError("the bus is away")

    async def hear(self, release: Release) -> None:
        self.heard.append(release.id)


def make_releases(release: Release, *others: Release) -> Any:
    """Releases whose champion is the first; one that is wanted can't be read."""
    known = {one.id: one for one in (release, *others)}

    async def find(name: str) -> Release:
        if name not in known:
            raise ArtifactError(f"release {name} is damaged")
        return known[name]

    wanted = Wanted((release.id, "damaged", *(one.id for one in others)))
    return SimpleNamespace(champion=lambda: release, changed=Changes(), desired=None, wanted=wanted, find=find)


def checkpoint(release: str) -> Checkpoint:
    return Checkpoint(new_ulid(), release, 0, 0)


async def store_at(path: Path) -> tuple[DirectoryStore, str]:
    store, release = DirectoryStore(path), replace(make_release(), id=new_ulid())
    await store.publish_release(release)
    return store, release.id


async def test_only_the_newest_checkpoints_of_a_release_stay(tmp_path: Path) -> None:
    store, name = await store_at(tmp_path)
    made = [checkpoint(name) for _ in range(CHECKPOINTS + 15)]
    for one in made:
        await store.publish_checkpoint(one)
    await collect_garbage(store, Champion(name), Wanted((name,)))
    assert {one.id for one in await store.list_checkpoints()} == set(sorted(one.id for one in made)[15:])


async def test_a_damaged_release_is_named_and_the_others_are_looked_after(tmp_path: Path) -> None:
    store, name = await store_at(tmp_path)
    bad = new_ulid()
    (tmp_path / "releases" / f"{bad}.json").write_bytes(b"\xff\xfe broken")
    with pytest.raises(ArtifactError, match="damaged"):
        await store.get_release(bad)
    assert await collect_garbage(store, Champion(name), Wanted((name,))) == []


async def test_a_damaged_checkpoint_stays_and_does_not_keep_the_others(tmp_path: Path) -> None:
    store, name = await store_at(tmp_path)
    made = [checkpoint(name) for _ in range(CHECKPOINTS + 3)]
    for one in made:
        await store.publish_checkpoint(one)
    for broken in (b"\xff", b"[]", b"{}"):
        (tmp_path / "checkpoints" / f"{new_ulid()}.json").write_bytes(broken)
    assert await collect_garbage(store, Champion(name), Wanted((name,))) == []
    assert {one.id for one in await store.list_checkpoints()} == set(sorted(one.id for one in made)[3:])
    assert len(list((tmp_path / "checkpoints").glob("*.json"))) == CHECKPOINTS + 3


async def test_the_store_is_cleared_again_while_the_champion_stays_also_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(housekeeping, "CLEAR_SECONDS", 0.02)
    release = make_release()
    releases = make_releases(release)
    keeper = Housekeeper(cast(Any, None), releases, Monitor(), cast(Any, Teller()))
    calls = 0

    async def clear() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ValueError("whatever it was")

    monkeypatch.setattr(keeper, "clear", clear)
    keeper.start()
    async with asyncio.timeout(5):
        while calls < 5:
            await asyncio.sleep(0.01)
    await keeper.close()


async def test_a_bus_that_is_away_keeps_no_store_from_being_cleared_and_what_is_withdrawn_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.01)
    release, teller = make_release(), Teller(fails_at=1)
    releases = make_releases(release)
    keeper = Housekeeper(cast(Any, None), releases, Monitor(), cast(Any, teller))
    cleared = asyncio.Event()

    async def clear() -> None:
        cleared.set()

    monkeypatch.setattr(keeper, "clear", clear)
    keeper.start()
    async with asyncio.timeout(5):
        await cleared.wait()
        while len(teller.told) < 3:
            await asyncio.sleep(0.01)
    await keeper.close()
    assert set(teller.told) == {release.id}


async def test_it_hears_of_every_release_that_may_be_served_though_one_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.01)
    champion, previous, teller = make_release(), replace(make_release(), id=new_ulid()), Teller(fails_at=1)
    releases = make_releases(champion, previous)
    keeper = Housekeeper(cast(Any, None), releases, Monitor(), cast(Any, teller))
    keeper.start()
    async with asyncio.timeout(5):
        while len(teller.heard) < 4:
            await asyncio.sleep(0.01)
    await keeper.close()
    assert teller.heard[:4] == [champion.id, previous.id] * 2
