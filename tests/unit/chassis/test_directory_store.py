"""What is special to the directory store: damage on disk, a full disk, parallel and killed writers."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError, NotFoundError, StorageFullError, UnknownReleaseError
from support.artifacts import make_release, make_version


async def test_a_changed_byte_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    manifest = make_version(tmp_path / "work", content=b"good bytes")
    await store.publish_version(tmp_path / "work", manifest)
    (tmp_path / "store/router" / manifest.version / "model.safetensors").write_bytes(b"good_bytes")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: sha256"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_a_version_copied_under_another_role_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    manifest = make_version(tmp_path / "work", "validator")
    await store.publish_version(tmp_path / "work", manifest)
    shutil.copytree(tmp_path / "store/validator", tmp_path / "store/router")
    with pytest.raises(ArtifactError, match="made for role validator, wanted router"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_a_version_under_another_name_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    (tmp_path / "store/router" / manifest.version).rename(tmp_path / "store/router/other")
    with pytest.raises(ArtifactError, match="wanted other"):
        await store.fetch_version("router", "other", tmp_path / "cache")


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    path = tmp_path / "store/router" / manifest.version / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"format_version": 1', '"format_version": 99'), "utf-8")
    with pytest.raises(ArtifactError, match="format 99"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_a_full_disk_leaves_nothing_half_published(small_disk: Path, tmp_path: Path) -> None:
    store = DirectoryStore(small_disk / "store")
    first = make_version(tmp_path / "one", content=os.urandom(200_000))
    second = make_version(tmp_path / "two", content=os.urandom(2_000_000))
    await store.publish_version(tmp_path / "one", first)
    with pytest.raises(StorageFullError, match=r"model\.safetensors"):
        await store.publish_version(tmp_path / "two", second)
    assert [path.name for path in (small_disk / "store/router").iterdir()] == [first.version]
    with pytest.raises(NotFoundError):
        await store.fetch_version("router", second.version, tmp_path / "cache")
    await store.fetch_version("router", first.version, tmp_path / "cache")


async def test_parallel_writers_of_one_version_both_succeed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    manifest = make_version(tmp_path / "work", content=os.urandom(1 << 20))
    await asyncio.gather(*(store.publish_version(tmp_path / "work", manifest) for _ in range(4)))
    assert [path.name for path in (tmp_path / "store/router").iterdir()] == [manifest.version]
    await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_what_a_killed_writer_left_is_no_version_and_is_swept(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    left = tmp_path / "store/router/.aside-abc-1-2"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    os.utime(left, (1.0, 1.0))
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    assert [path.name for path in (tmp_path / "store/router").iterdir()] == [manifest.version]


async def test_strange_files_among_the_releases_are_not_releases(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    release = make_release()
    await store.publish_release(release)
    (tmp_path / "store/releases/notes.json").write_text("{}", "utf-8")
    assert await store.list_releases() == [release.id]


async def test_a_release_whose_bytes_are_no_text_or_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    store, release = DirectoryStore(tmp_path), make_release()
    path = tmp_path / "releases" / f"{release.id}.json"
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match=f"{release.id}.json is damaged"):
        await store.get_release(release.id)
    with pytest.raises(ArtifactError, match="already published with other content"):
        await store.publish_release(release)
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError, match=f"{release.id}.json can't be read"):
        await store.get_release(release.id)


async def test_a_release_that_goes_while_it_is_read_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, release = DirectoryStore(tmp_path), make_release()
    await store.publish_release(release)
    read = asyncio.to_thread

    async def delete_first(function: Any, *args: Any) -> Any:
        (tmp_path / "releases" / f"{release.id}.json").unlink()
        return await read(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", delete_first)
    with pytest.raises(UnknownReleaseError):
        await store.get_release(release.id)


async def test_a_manifest_whose_bytes_are_no_text_is_an_error_with_its_folder(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    (tmp_path / "store/router" / manifest.version / "manifest.json").write_bytes(b"\xff")
    with pytest.raises(ArtifactError, match=f"{manifest.version}: no readable manifest.json"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_versions_are_listed_without_what_is_aside_and_since_they_are_here(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    began = time.time()
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    folder = tmp_path / "store/router" / manifest.version
    (tmp_path / "store/router/.aside-other-1-ab").mkdir()
    (tmp_path / "store/router/no-folder").touch()
    # A folder that was copied here with its times is as young as the copy.
    os.utime(folder, (1000.0, 1000.0))
    (found,) = await store.list_versions()
    assert (found.role, found.version) == ("router", manifest.version)
    assert found.written_at > began - 5.0
