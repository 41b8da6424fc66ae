"""Both artifact stores behind the one interface; damage, wrong roles and full disks are refused by name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shammah_chassis.artifacts import ArtifactStore, open_store
from shammah_chassis.bus import Bus
from shammah_chassis.errors import (
    ArtifactError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    UnknownReleaseError,
)
from shammah_chassis.manifest import FileEntry, read_manifest
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.object_store import ObjectStore
from shammah_chassis.orphans import purge_orphans
from support.artifacts import make_checkpoint, make_release, make_version


@pytest.fixture(params=["dir", "nats"])
async def store(request: pytest.FixtureRequest, bus: Bus, tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    yield open_store(f"dir:{tmp_path / 'store'}" if request.param == "dir" else "nats:", bus)


async def test_a_version_comes_back_with_the_same_bytes(store: ArtifactStore, tmp_path: Path) -> None:
    # Above two chunks of the object store, and not a multiple of one.
    content = os.urandom((2 << 20) + 12345)
    manifest = make_version(tmp_path / "work", content=content)
    await store.publish_version(tmp_path / "work", manifest)
    folder = await store.fetch_version("router", manifest.version, tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == content
    assert read_manifest(folder) == manifest
    assert await store.fetch_version("router", manifest.version, tmp_path / "cache") == folder


async def test_publishing_the_same_version_again_is_no_error(store: ArtifactStore, tmp_path: Path) -> None:
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    await store.publish_version(tmp_path / "work", dataclasses.replace(manifest, position=9))
    folder = await store.fetch_version("router", manifest.version, tmp_path / "cache")
    assert read_manifest(folder).position == 0


async def test_a_published_name_never_changes(store: ArtifactStore, tmp_path: Path) -> None:
    first = make_version(tmp_path / "one", content=b"one")
    second = dataclasses.replace(make_version(tmp_path / "two", content=b"two"), version=first.version)
    await store.publish_version(tmp_path / "one", first)
    with pytest.raises(ArtifactError, match=r"already published.*model\.safetensors"):
        await store.publish_version(tmp_path / "two", second)
    folder = await store.fetch_version("router", first.version, tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == b"one"


async def test_files_that_are_not_what_the_manifest_says_are_not_published(
    store: ArtifactStore, tmp_path: Path
) -> None:
    manifest = make_version(tmp_path / "work")
    (tmp_path / "work/model.safetensors").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        await store.publish_version(tmp_path / "work", manifest)
    with pytest.raises(NotFoundError):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_a_version_of_another_role_is_not_found_under_this_one(store: ArtifactStore, tmp_path: Path) -> None:
    manifest = make_version(tmp_path / "work", "validator")
    await store.publish_version(tmp_path / "work", manifest)
    with pytest.raises(NotFoundError, match="router"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


@pytest.mark.parametrize("name", ["../escape", "a/b", ".hidden", ""])
async def test_a_file_name_that_could_leave_the_folder_is_refused(
    store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    manifest = make_version(tmp_path / "work")
    bad = dataclasses.replace(manifest, files={**manifest.files, name: FileEntry(0, "0" * 64)})
    with pytest.raises(ArtifactError, match="file name"):
        await store.publish_version(tmp_path / "work", bad)


async def test_a_version_name_that_could_leave_the_store_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        await store.fetch_version("router", "../releases", tmp_path / "cache")


async def test_a_deleted_version_is_gone_and_may_be_deleted_again(store: ArtifactStore, tmp_path: Path) -> None:
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    await store.delete_version("router", manifest.version)
    await store.delete_version("router", manifest.version)
    with pytest.raises(NotFoundError):
        await store.fetch_version("router", manifest.version, tmp_path / "other-cache")
    # The bytes can be published again.
    await store.publish_version(tmp_path / "work", manifest)
    await store.fetch_version("router", manifest.version, tmp_path / "other-cache")


async def test_releases_are_listed_newest_first_and_come_back_whole(store: ArtifactStore) -> None:
    assert await store.list_releases() == []
    releases = [make_release(router=f"r{index}", now=1000.0 + index) for index in range(3)]
    for release in releases:
        await store.publish_release(release)
    assert await store.list_releases() == [release.id for release in reversed(releases)]
    assert await store.get_release(releases[1].id) == releases[1]
    await store.delete_release(releases[2].id)
    await store.delete_release(releases[2].id)
    assert await store.list_releases() == [releases[1].id, releases[0].id]
    with pytest.raises(UnknownReleaseError, match=releases[2].id):
        await store.get_release(releases[2].id)


async def test_a_release_id_is_taken_once(store: ArtifactStore) -> None:
    release = make_release()
    await store.publish_release(release)
    await store.publish_release(release)
    with pytest.raises(ArtifactError, match="already published"):
        await store.publish_release(dataclasses.replace(release, router="other"))
    assert await store.get_release(release.id) == release


async def test_checkpoints_are_listed_newest_first(store: ArtifactStore) -> None:
    release = make_release()
    checkpoints = [make_checkpoint(release.id, now=1000.0 + index) for index in range(3)]
    for checkpoint in checkpoints:
        await store.publish_checkpoint(checkpoint)
    await store.delete_checkpoint(checkpoints[0].id)
    assert await store.list_checkpoints() == [checkpoints[2], checkpoints[1]]


async def test_what_is_no_text_in_the_object_store_is_refused_by_name_and_hides_nothing_else(bus: Bus) -> None:
    store, release = ObjectStore(bus), make_release()
    good, broken = make_checkpoint(release.id, now=1000.0), make_checkpoint(release.id, now=1001.0)
    await store.publish_checkpoint(good)
    bucket = await bus.jetstream.object_store("artifacts")
    for name in (f"releases/{release.id}", f"checkpoints/{broken.id}"):
        await bucket.put(name, b"\xff\xfe")
    with pytest.raises(ArtifactError, match=f"releases/{release.id} is damaged"):
        await store.get_release(release.id)
    assert await store.list_checkpoints() == [good]


async def test_a_damaged_object_is_refused_by_name_and_nothing_reaches_the_cache(bus: Bus, tmp_path: Path) -> None:
    store = ObjectStore(bus)
    manifest = make_version(tmp_path / "work", content=os.urandom(3 << 20))
    await store.publish_version(tmp_path / "work", manifest)
    entry = manifest.files["model.safetensors"]
    bucket = await bus.jetstream.object_store("artifacts")
    info = await bucket.get_info(f"files/router/{manifest.version}/{entry.sha256}")
    await bus.jetstream.publish(f"$O.artifacts.C.{info.nuid}", b"one chunk too many")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_missing_object_is_refused_by_name(bus: Bus, tmp_path: Path) -> None:
    store = ObjectStore(bus)
    manifest = make_version(tmp_path / "work")
    await store.publish_version(tmp_path / "work", manifest)
    bucket = await bus.jetstream.object_store("artifacts")
    await bucket.delete(f"files/router/{manifest.version}/{manifest.files['tokenizer.json'].sha256}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        await store.fetch_version("router", manifest.version, tmp_path / "cache")


async def test_a_damaged_cache_is_fetched_again(bus: Bus, tmp_path: Path) -> None:
    store = ObjectStore(bus)
    manifest = make_version(tmp_path / "work", content=b"good")
    await store.publish_version(tmp_path / "work", manifest)
    folder = await store.fetch_version("router", manifest.version, tmp_path / "cache")
    (folder / "model.safetensors").write_bytes(b"bad!")
    again = await store.fetch_version("router", manifest.version, tmp_path / "cache")
    assert (again / "model.safetensors").read_bytes() == b"good"


async def test_a_full_object_store_leaves_nothing_half_published(tmp_path: Path) -> None:
    server = NatsServer.start(tmp_path / "small", max_store_bytes=6 << 20)
    try:
        bus = await Bus.connect(server.url)
        store = ObjectStore(bus)
        first = make_version(tmp_path / "one", content=os.urandom(2 << 20))
        second = make_version(tmp_path / "two", content=os.urandom(8 << 20))
        await store.publish_version(tmp_path / "one", first)
        with pytest.raises(StorageFullError):
            await store.publish_version(tmp_path / "two", second)
        with pytest.raises(NotFoundError):
            await store.fetch_version("router", second.version, tmp_path / "cache")
        await store.fetch_version("router", first.version, tmp_path / "cache")
        info = await bus.jetstream.stream_info("OBJ_artifacts")
        assert info.state.bytes < 3 << 20, "chunks of the failed version are still there"
        await bus.close()
    finally:
        server.stop()


KILLED_WRITER = """
import asyncio, os, sys
from pathlib import Path
from shammah_chassis.bus import Bus
from shammah_chassis.object_store import ObjectStore
from support.artifacts import make_version

async def main() -> None:
    bus = await Bus.connect(sys.argv[1])
    work = Path(sys.argv[2])
    manifest = make_version(work, content=os.urandom(8 << 20))
    from nats.js.client import JetStreamContext
    send = JetStreamContext.publish
    chunks = []
    async def die_after_three(self, subject, *args, **kwargs):
        if subject.startswith("$O.artifacts.C."):
            chunks.append(subject)
        if len(chunks) > 3:
            os.kill(os.getpid(), 9)
        return await send(self, subject, *args, **kwargs)
    JetStreamContext.publish = die_after_three
    await ObjectStore(bus).publish_version(work, manifest)

asyncio.run(main())
"""


async def test_chunks_of_a_killed_writer_are_purged_later_and_live_ones_stay(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    store = ObjectStore(bus)
    live = make_version(tmp_path / "live", content=os.urandom(2 << 20))
    await store.publish_version(tmp_path / "live", live)
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", KILLED_WRITER, nats_server.url, str(tmp_path / "killed")]
    ended = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop
        command, env={**os.environ, "PYTHONPATH": tests}, capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == -9, ended.stderr.decode()
    bucket = await bus.jetstream.object_store("artifacts")
    assert await purge_orphans(bus, bucket) == 0, "a young orphan may belong to a writer at work"
    assert await purge_orphans(bus, bucket, older_than_seconds=-5.0) == 1
    assert await purge_orphans(bus, bucket, older_than_seconds=-5.0) == 0
    await store.fetch_version("router", live.version, tmp_path / "cache")


async def test_an_unknown_store_url_is_refused(bus: Bus) -> None:
    with pytest.raises(InvalidInputError, match="s3"):
        open_store("s3://bucket", bus)
    with pytest.raises(InvalidInputError, match="NATS"):
        open_store("nats:", None)
