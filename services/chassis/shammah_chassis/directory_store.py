"""The artifact store in a directory: `<role>/<version>/`, `releases/<ulid>.json`, `checkpoints/<ulid>.json`.

For one machine, or a volume that all pods mount. It does not know what is in the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from shammah_chassis.artifacts import (
    StoredVersion,
    check_manifest,
    check_version_name,
    decode_text,
    is_version_name,
    require_same_files,
)
from shammah_chassis.atomic import (
    aside_path,
    copy_durably,
    fsync_folder,
    remove_tree,
    storage_errors,
    sweep_aside,
    write_new,
)
from shammah_chassis.checkpoints import Checkpoint, parse_checkpoint
from shammah_chassis.errors import ArtifactError, NotFoundError, UnknownReleaseError
from shammah_chassis.manifest import MANIFEST_NAME, ROLES, Manifest, Role, read_manifest, verify_folder
from shammah_chassis.releases import Release, parse_release
from shammah_chassis.ulid import is_ulid

# A writer that needs longer than this for one version is taken for dead, and what it left is removed.
_ABANDONED_SECONDS = 3600.0
_log = logging.getLogger(__name__)


class DirectoryStore:
    """Artifacts below `root`. Several processes may use one root at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def publish_version(self, folder: Path, manifest: Manifest) -> None:
        """See `ArtifactStore.publish_version`."""
        await asyncio.to_thread(self._publish_version, folder, manifest)

    async def fetch_version(self, role: Role, version: str, cache_dir: Path) -> Path:
        """Verify a version in place and return its folder in the store; `cache_dir` is not used."""
        return await asyncio.to_thread(self._verify, role, version)

    async def publish_release(self, release: Release) -> None:
        """See `ArtifactStore.publish_release`."""
        await asyncio.to_thread(self._publish_text, "releases", release.id, release.to_json())

    async def get_release(self, release_id: str) -> Release:
        """See `ArtifactStore.get_release`."""
        unknown = UnknownReleaseError(f"release {release_id!r} is not in the store {self.root}")
        if not is_ulid(release_id):
            raise unknown
        try:
            return parse_release(await asyncio.to_thread(_read_text, self.root / "releases" / f"{release_id}.json"))
        except FileNotFoundError:
            raise unknown from None

    async def list_releases(self) -> list[str]:
        """See `ArtifactStore.list_releases`."""
        return await asyncio.to_thread(self._ids, "releases")

    async def publish_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `ArtifactStore.publish_checkpoint`."""
        await asyncio.to_thread(self._publish_text, "checkpoints", checkpoint.id, checkpoint.to_json())

    async def list_checkpoints(self) -> list[Checkpoint]:
        """See `ArtifactStore.list_checkpoints`."""
        return await asyncio.to_thread(self._checkpoints)

    async def list_versions(self) -> list[StoredVersion]:
        """See `ArtifactStore.list_versions`; `written_at` is when a folder got its name here, whoever gave it."""
        return await asyncio.to_thread(self._versions)

    async def delete_version(self, role: Role, version: str) -> None:
        """See `ArtifactStore.delete_version`. The name goes at once, then the files."""
        check_version_name(role, version)
        await asyncio.to_thread(self._delete_folder, self.root / role / version)

    async def delete_release(self, release_id: str) -> None:
        """See `ArtifactStore.delete_release`."""
        await asyncio.to_thread(self._delete_text, "releases", release_id)

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        """See `ArtifactStore.delete_checkpoint`."""
        await asyncio.to_thread(self._delete_text, "checkpoints", checkpoint_id)

    def _publish_version(self, folder: Path, manifest: Manifest) -> None:
        check_manifest(manifest)
        target = self.root / manifest.role / manifest.version
        with storage_errors(f"version {manifest.version}"):
            target.parent.mkdir(parents=True, exist_ok=True)
        sweep_aside(target.parent, older_than_seconds=_ABANDONED_SECONDS)
        if target.is_dir():
            require_same_files(read_manifest(target), manifest)
            return
        aside = aside_path(target)
        try:
            with storage_errors(f"version {manifest.version} of {manifest.role}"):
                aside.mkdir()
                self._copy_files(folder, aside, manifest)
                write_new(aside / MANIFEST_NAME, manifest.to_json().encode())
                fsync_folder(aside)
                self._give_name(aside, target, manifest)
        finally:
            remove_tree(aside)

    def _copy_files(self, folder: Path, aside: Path, manifest: Manifest) -> None:
        for name, wanted in manifest.files.items():
            if not (folder / name).is_file():
                raise ArtifactError(f"version {manifest.version}: file {name} is missing in {folder}")
            written = copy_durably(folder / name, aside / name)
            if written != wanted:
                raise ArtifactError(
                    f"version {manifest.version}/{name}: sha256 {written.sha256} ({written.size} bytes), "
                    f"the manifest says {wanted.sha256} ({wanted.size} bytes)"
                )

    def _give_name(self, aside: Path, target: Path, manifest: Manifest) -> None:
        try:
            os.rename(aside, target)
        except OSError:
            if not target.is_dir():
                raise
            # Another writer was faster: a non-empty folder is never replaced by a rename.
            require_same_files(read_manifest(target), manifest)
        fsync_folder(target.parent)

    def _verify(self, role: Role, version: str) -> Path:
        check_version_name(role, version)
        folder = self.root / role / version
        if not folder.is_dir():
            raise NotFoundError(f"version {version!r} of {role} is not in the store {self.root}")
        manifest = verify_folder(folder, role=role)
        if manifest.version != version:
            raise ArtifactError(f"{folder}: the manifest is of version {manifest.version}, wanted {version}")
        return folder

    def _publish_text(self, kind: str, name: str, text: str) -> None:
        if not is_ulid(name):
            raise ArtifactError(f"{kind}: id {name!r} is not a ULID")
        path = self.root / kind / f"{name}.json"
        with storage_errors(f"{kind}/{name}"):
            try:
                write_new(path, text.encode())
            except FileExistsError:
                if path.read_bytes() != text.encode():
                    raise ArtifactError(
                        f"{kind}/{name} is already published with other content; a published name never changes"
                    ) from None

    def _ids(self, kind: str) -> list[str]:
        folder = self.root / kind
        if not folder.is_dir():
            return []
        return sorted((path.stem for path in folder.glob("*.json") if is_ulid(path.stem)), reverse=True)

    def _checkpoints(self) -> list[Checkpoint]:
        found = []
        for name in self._ids("checkpoints"):
            try:
                found.append(parse_checkpoint(_read_text(self.root / "checkpoints" / f"{name}.json")))
            except FileNotFoundError:
                continue  # deleted since it was listed
            except ArtifactError as error:
                _log.warning("checkpoint %s is left out: %s", name, error.message)
        return found

    def _versions(self) -> list[StoredVersion]:
        found = []
        for role in ROLES:
            for folder in sorted((self.root / role).glob("*")):
                with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                    if is_version_name(folder.name) and folder.is_dir():
                        # A copy by hand may keep the time of the files; this one is of the folder itself.
                        found.append(StoredVersion(role, folder.name, folder.stat().st_ctime))
        return found

    def _delete_folder(self, folder: Path) -> None:
        aside = aside_path(folder)
        try:
            os.rename(folder, aside)
        except FileNotFoundError:
            return
        fsync_folder(folder.parent)
        remove_tree(aside)

    def _delete_text(self, kind: str, name: str) -> None:
        if not is_ulid(name):
            return
        path = self.root / kind / f"{name}.json"
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            fsync_folder(path.parent)


def _read_text(path: Path) -> str:
    """Return the text of a file; ArtifactError when it can't be read, FileNotFoundError when there is none."""
    try:
        return decode_text(path.read_bytes(), path.name)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArtifactError(f"{path.name} can't be read: {error.strerror}") from error
