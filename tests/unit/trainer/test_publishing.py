"""Publishing: the release after its files, and the wish of a candidate by compare-and-set."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.bus import KvEntry
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ConflictError
from shammah_chassis.manifest import MANIFEST_NAME, read_manifest, verify_folder
from shammah_chassis.releases import Wanted, parse_wanted
from shammah_trainer.publishing import (
    Description,
    has_release,
    make_version,
    propose_candidate,
    publish,
    read_champion,
    write_first_champion,
)
from support.artifacts import make_release


class Keys:
    """The bucket in memory; `rivals` are writes that another process slips in before ours."""

    def __init__(self, rivals: int = 0) -> None:
        self.values: dict[str, KvEntry] = {}
        self.rivals = rivals
        self._revision = 0

    async def kv_get(self, key: str) -> KvEntry | None:
        return self.values.get(key)

    async def kv_create(self, key: str, value: str) -> int:
        return await self.kv_update(key, value, 0)

    async def kv_update(self, key: str, value: str, revision: int) -> int:
        if self.rivals:
            self.rivals -= 1
            self._set(key, Wanted((f"rival{self.rivals}",)).to_json())
        found = self.values.get(key)
        if (found.revision if found else 0) != revision:
            raise ConflictError("not the newest")
        return self._set(key, value)

    def _set(self, key: str, value: str) -> int:
        self._revision += 1
        self.values[key] = KvEntry(value, self._revision)
        return self._revision


def fill(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_a_version_is_named_by_its_content_and_knows_its_parent(tmp_path: Path) -> None:
    first = make_version("router", fill(tmp_path / "a"), parent=None, about=Description(config={"x": 1}))
    about = Description(config={}, labels=("a",), position=7)
    second = make_version("router", fill(tmp_path / "b", b"other"), parent=first.manifest, about=about)
    same = make_version("router", fill(tmp_path / "c"), parent=None, about=Description(config={}))
    assert (second.manifest.parent, second.manifest.step) == (first.manifest.version, 1)
    assert same.manifest.version == first.manifest.version != second.manifest.version
    assert verify_folder(second.folder, role="router").labels == ("a",)


async def test_a_proposal_survives_rivals_and_keeps_what_they_wanted() -> None:
    keys = Keys(rivals=3)
    await propose_candidate(keys, "new")
    entry = keys.values["wanted"]
    assert parse_wanted(entry.value) == Wanted(("rival0", "new"), "new")
    await propose_candidate(keys, "new")
    assert keys.values["wanted"] == entry


async def test_a_proposal_that_always_loses_is_a_conflict() -> None:
    with pytest.raises(ConflictError):
        await propose_candidate(Keys(rivals=1000), "new")


async def test_the_first_champion_is_written_once() -> None:
    keys = Keys()
    assert await read_champion(keys) is None
    await write_first_champion(keys, "zero")
    await write_first_champion(keys, "other")
    champion = await read_champion(keys)
    assert champion is not None
    assert champion.release == "zero"
    assert parse_wanted(keys.values["wanted"].value).releases == ("zero",)


async def test_a_release_is_not_published_once_the_lease_is_lost(tmp_path: Path) -> None:
    version = make_version("router", fill(tmp_path / "a"), parent=None, about=Description(config={}))
    store = DirectoryStore(tmp_path / "store")
    release = make_release(router=version.manifest.version)

    async def lost() -> None:
        raise ConflictError("another holds it")

    async def held() -> None:
        return None

    with pytest.raises(ConflictError):
        await publish(store, release, {"router": version}, check_lease=lost)
    assert not await has_release(store, release.id)
    for _ in range(2):
        await publish(store, release, {"router": version}, check_lease=held)
    assert await has_release(store, release.id)
    folder = await store.fetch_version("router", version.manifest.version, tmp_path / "cache")
    assert read_manifest(folder) == version.manifest
    assert (version.folder / MANIFEST_NAME).is_file()


async def test_a_release_is_not_published_once_a_version_of_it_was_cleared(tmp_path: Path) -> None:
    version = make_version("router", fill(tmp_path / "a"), parent=None, about=Description(config={}))
    store = DirectoryStore(tmp_path / "store")
    release = make_release(router=version.manifest.version)

    async def sleep_while_another_clears() -> None:
        await store.delete_version("router", version.manifest.version)

    with pytest.raises(ConflictError, match="cleared"):
        await publish(store, release, {"router": version}, check_lease=sleep_while_another_clears)
    assert not await has_release(store, release.id)
