"""The artifact store in a JetStream object store, for many hosts.

Objects have immutable names: `files/<role>/<version>/<sha256>`, and `manifests/<role>/<version>`, which is written last
and makes a version exist; `releases/<ulid>` and `checkpoints/<ulid>`. Nothing is ever overwritten: a reader of an
overwritten object would wait for ever. It does not know what is in the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import nats.errors
import nats.js.errors
from nats.js import api

from shammah_chassis.artifacts import (
    StoredVersion,
    check_manifest,
    check_version_name,
    decode_text,
    is_version_name,
    require_same_files,
)
from shammah_chassis.atomic import aside_path, fsync_folder, remove_tree, storage_errors, sweep_aside, write_new
from shammah_chassis.bus import Bus
from shammah_chassis.checkpoints import Checkpoint, parse_checkpoint
from shammah_chassis.errors import ArtifactError, NotFoundError, UnknownReleaseError
from shammah_chassis.manifest import (
    MANIFEST_NAME,
    ROLES,
    FileEntry,
    Manifest,
    Role,
    digest_file,
    parse_manifest,
    verify_folder,
)
from shammah_chassis.orphans import purge_orphans
from shammah_chassis.releases import Release, parse_release
from shammah_chassis.streams import ARTIFACTS
from shammah_chassis.ulid import is_ulid

if TYPE_CHECKING:
    from nats.js.object_store import ObjectStore as Bucket

_CHUNK = 1 << 20
# The slowest transfer that is still waited for; a reader whose chunks were purged gets no error from nats-py.
_BYTES_PER_SECOND = 2 << 20
_PATIENCE_SECONDS = 20.0
_CHUNK_SECONDS = 10.0
_log = logging.getLogger(__name__)


class ObjectStore:
    """Artifacts in the bucket `artifacts`. Large transfers use a connection of their own."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish_version(self, folder: Path, manifest: Manifest) -> None:
        """See `ArtifactStore.publish_version`. Files first, the manifest last: it is what makes the version exist."""
        check_manifest(manifest)
        for name, wanted in manifest.files.items():
            await asyncio.to_thread(_check_file, folder / name, wanted, manifest)
        async with self._transfer() as bucket:
            name = f"manifests/{manifest.role}/{manifest.version}"
            stored = await self._read(bucket, name)
            if stored is not None:
                require_same_files(parse_manifest(decode_text(stored, name)), manifest)
                return
            for file, wanted in manifest.files.items():
                with (folder / file).open("rb") as source:
                    await self._put(bucket, _file_object(manifest, wanted), source, wanted.size)
            await self._put_text(bucket, name, manifest.to_json())

    async def fetch_version(self, role: Role, version: str, cache_dir: Path) -> Path:
        """Return `cache_dir/<version>`, verified; what is missing or damaged there is fetched (again)."""
        check_version_name(role, version)
        target = cache_dir / version
        if target.is_dir():
            try:
                await asyncio.to_thread(verify_folder, target, role=role)
                return target
            except ArtifactError:
                await asyncio.to_thread(remove_tree, target)
        async with self._transfer() as bucket:
            name = f"manifests/{role}/{version}"
            stored = await self._read(bucket, name)
            if stored is None:
                raise NotFoundError(f"version {version!r} of {role} is not in the object store")
            manifest = parse_manifest(decode_text(stored, name))
            check_manifest(manifest)
            if (manifest.role, manifest.version) != (role, version):
                raise ArtifactError(
                    f"{role}/{version}: the manifest is of {manifest.role}/{manifest.version}, wanted {role}/{version}"
                )
            await self._fetch_files(bucket, manifest, target)
        return target

    async def publish_release(self, release: Release) -> None:
        """See `ArtifactStore.publish_release`."""
        await self._publish_text("releases", release.id, release.to_json())

    async def get_release(self, release_id: str) -> Release:
        """See `ArtifactStore.get_release`."""
        name = f"releases/{release_id}"
        data = await self._read(await self._bucket(self._bus), name)
        if data is None:
            raise UnknownReleaseError(f"release {release_id!r} is not in the object store")
        return parse_release(decode_text(data, name))

    async def list_releases(self) -> list[str]:
        """See `ArtifactStore.list_releases`."""
        return await self._ids("releases/")

    async def publish_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `ArtifactStore.publish_checkpoint`."""
        await self._publish_text("checkpoints", checkpoint.id, checkpoint.to_json())

    async def list_checkpoints(self) -> list[Checkpoint]:
        """See `ArtifactStore.list_checkpoints`."""
        bucket = await self._bucket(self._bus)
        found = []
        for name in await self._ids("checkpoints/"):
            try:
                data = await self._read(bucket, f"checkpoints/{name}")
                if data is not None:
                    found.append(parse_checkpoint(decode_text(data, name)))
            except ArtifactError as error:
                _log.warning("checkpoint %s is left out: %s", name, error.message)
        return found

    async def list_versions(self) -> list[StoredVersion]:
        """See `ArtifactStore.list_versions`; chunks of an object that was never finished are `orphans`'."""
        newest: dict[tuple[Role, str], float] = {}
        for item in await self._objects():
            kind, role, version = (*item.name.split("/"), "", "")[:3]
            for named in ROLES:
                if kind in ("files", "manifests") and role == named and is_version_name(version):
                    newest[named, version] = max(newest.get((named, version), 0.0), _time_of(item))
        return [StoredVersion(role, version, at) for (role, version), at in sorted(newest.items())]

    async def delete_version(self, role: Role, version: str) -> None:
        """See `ArtifactStore.delete_version`. The manifest goes first, so that no half version is ever seen."""
        check_version_name(role, version)
        bucket = await self._bucket(self._bus)
        await self._delete(bucket, f"manifests/{role}/{version}")
        for name in await self._names(f"files/{role}/{version}/"):
            await self._delete(bucket, name)
        # Writers that were killed left chunks that no object has.
        await purge_orphans(self._bus, await self._bucket(self._bus))

    async def delete_release(self, release_id: str) -> None:
        """See `ArtifactStore.delete_release`."""
        await self._delete(await self._bucket(self._bus), f"releases/{release_id}")

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        """See `ArtifactStore.delete_checkpoint`."""
        await self._delete(await self._bucket(self._bus), f"checkpoints/{checkpoint_id}")

    @contextlib.asynccontextmanager
    async def _transfer(self) -> AsyncIterator[Bucket]:
        """Give the bucket on a fresh connection: a transfer that is given up leaves its subscription there."""
        bus = await self._bus.another(attempt_seconds=_CHUNK_SECONDS)
        try:
            yield await self._bucket(bus)
        finally:
            await bus.close()

    async def _bucket(self, bus: Bus) -> Bucket:
        js = bus.jetstream
        try:
            return await bus.call(lambda: js.object_store(ARTIFACTS), "open object store")
        except nats.js.errors.BucketNotFoundError:
            return await bus.call(lambda: js.create_object_store(ARTIFACTS), "make object store")

    async def _fetch_files(self, bucket: Bucket, manifest: Manifest, target: Path) -> None:
        with storage_errors(f"version {manifest.version}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            sweep_aside(target.parent, older_than_seconds=3600.0)
            aside = aside_path(target)
            aside.mkdir()
            try:
                for name, wanted in manifest.files.items():
                    await self._get(bucket, _file_object(manifest, wanted), aside / name, wanted)
                write_new(aside / MANIFEST_NAME, manifest.to_json().encode())
                await asyncio.to_thread(verify_folder, aside, role=manifest.role)
                fsync_folder(aside)
                await asyncio.to_thread(_give_name, aside, target)
            finally:
                await asyncio.to_thread(remove_tree, aside)

    async def _put(self, bucket: Bucket, name: str, source: BinaryIO, size: int) -> None:
        if await self._has(bucket, name):
            return  # the name holds its digest: what is there is the same

        async def attempt() -> None:
            source.seek(0)
            meta = api.ObjectMeta(name=name, options=api.ObjectMetaOptions(max_chunk_size=_CHUNK))
            await bucket.put(name, source, meta=meta)

        await self._bus.call(attempt, f"put {name}", budget=_patience(size))

    async def _get(self, bucket: Bucket, name: str, path: Path, wanted: FileEntry) -> None:
        async def attempt() -> None:
            with path.open("wb") as sink:
                # Without `writeinto` nats-py joins the chunks in quadratic time.
                await asyncio.wait_for(bucket.get(name, writeinto=sink), _patience(wanted.size))
                sink.flush()
                await asyncio.to_thread(os.fsync, sink.fileno())

        try:
            await self._bus.call(attempt, f"get {name}", budget=0.0)
        except nats.js.errors.DigestMismatchError as error:
            raise ArtifactError(f"{name} ({path.name}): its bytes in the object store are damaged") from error
        except nats.js.errors.NotFoundError as error:
            raise ArtifactError(f"{name} ({path.name}): missing in the object store") from error

    async def _has(self, bucket: Bucket, name: str) -> bool:
        try:
            await self._bus.call(lambda: bucket.get_info(name), f"look for {name}")
        except nats.js.errors.NotFoundError:
            return False
        return True

    async def _read(self, bucket: Bucket, name: str) -> bytes | None:
        """Return a small object (a manifest, a release) or None."""

        async def attempt() -> bytes:
            sink = io.BytesIO()
            await asyncio.wait_for(bucket.get(name, writeinto=sink), _CHUNK_SECONDS)
            return sink.getvalue()

        try:
            return await self._bus.call(attempt, f"read {name}")
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.DigestMismatchError as error:
            raise ArtifactError(f"{name}: its bytes in the object store are damaged") from error

    async def _put_text(self, bucket: Bucket, name: str, text: str) -> None:
        data = text.encode()
        await self._put(bucket, name, io.BytesIO(data), len(data))

    async def _publish_text(self, kind: str, name: str, text: str) -> None:
        if not is_ulid(name):
            raise ArtifactError(f"{kind}: id {name!r} is not a ULID")
        bucket = await self._bucket(self._bus)
        await self._put_text(bucket, f"{kind}/{name}", text)
        if await self._read(bucket, f"{kind}/{name}") != text.encode():
            raise ArtifactError(
                f"{kind}/{name} is already published with other content; a published name never changes"
            )

    async def _objects(self) -> list[api.ObjectInfo]:
        bucket = await self._bucket(self._bus)
        try:
            return await self._bus.call(
                lambda: asyncio.wait_for(bucket.list(ignore_deletes=True), _PATIENCE_SECONDS), "list objects"
            )
        except nats.js.errors.NotFoundError:
            return []

    async def _names(self, prefix: str) -> list[str]:
        return sorted(info.name for info in await self._objects() if info.name.startswith(prefix))

    async def _ids(self, prefix: str) -> list[str]:
        names = [name.removeprefix(prefix) for name in await self._names(prefix)]
        return sorted((name for name in names if is_ulid(name)), reverse=True)

    async def _delete(self, bucket: Bucket, name: str) -> None:
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await self._bus.call(lambda: bucket.delete(name), f"delete {name}")


def _file_object(manifest: Manifest, entry: FileEntry) -> str:
    return f"files/{manifest.role}/{manifest.version}/{entry.sha256}"


def _time_of(item: api.ObjectInfo) -> float:
    """Return when an object was written, in seconds of the epoch; now where its writer did not say."""
    try:
        # Other writers give nanoseconds, which are more than `fromisoformat` reads; seconds are enough here.
        return datetime.fromisoformat((item.mtime or "")[:19] + "+00:00").timestamp()
    except ValueError:
        return time.time()


def _patience(size: int) -> float:
    return _PATIENCE_SECONDS + size / _BYTES_PER_SECOND


def _give_name(aside: Path, target: Path) -> None:
    try:
        os.rename(aside, target)
    except OSError:
        # A non-empty folder is never replaced: a parallel fetch was faster and has verified the same bytes.
        if not target.is_dir():
            raise
    fsync_folder(target.parent)


def _check_file(path: Path, wanted: FileEntry, manifest: Manifest) -> None:
    if not path.is_file():
        raise ArtifactError(f"version {manifest.version}: file {path.name} is missing in {path.parent}")
    found = digest_file(path)
    if found != wanted:
        raise ArtifactError(
            f"version {manifest.version}/{path.name}: sha256 {found.sha256} ({found.size} bytes), "
            f"the manifest says {wanted.sha256} ({wanted.size} bytes)"
        )
