"""The small interface behind which versions, releases and checkpoints are kept, and the choice of a store by its URL.

Names are immutable: what was published under a name never changes. It knows neither how a store keeps its bytes nor
what a role does with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shammah_chassis.checkpoints import Checkpoint
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.manifest import MANIFEST_NAME, ROLES, Manifest, Role
from shammah_chassis.releases import Release

if TYPE_CHECKING:
    from shammah_chassis.bus import Bus

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version that a store has something of, be it half; `written_at`: when the last was, in seconds of the epoch."""

    role: Role
    version: str
    written_at: float


class ArtifactStore(Protocol):
    """Where artifacts live. Every method may raise UnavailableError when the store is away."""

    async def publish_version(self, folder: Path, manifest: Manifest) -> None:
        """Store the files that `manifest` lists, from `folder`, and the manifest last.

        Publishing the same files again is no error.

        Raises:
            ArtifactError: a file is missing or is not what the manifest says, or the name is taken by other files.
            StorageFullError: no space; nothing is half published.
        """

    async def fetch_version(self, role: Role, version: str, cache_dir: Path) -> Path:
        """Return a local folder with the verified files of a version; a remote store puts it into `cache_dir`.

        Raises:
            NotFoundError: nobody published it.
            ArtifactError: wrong role, newer format, or a file that is not what the manifest says (named).
            StorageFullError: no space for the local copy.
        """

    async def publish_release(self, release: Release) -> None:
        """Store a release; the same again is no error, another one under the same id is ArtifactError."""

    async def get_release(self, release_id: str) -> Release:
        """Return a release; UnknownReleaseError when the store has none of that id."""

    async def list_releases(self) -> list[str]:
        """Return the ids of all releases, newest first."""

    async def publish_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint; rules as for `publish_release`."""

    async def list_checkpoints(self) -> list[Checkpoint]:
        """Return all checkpoints that can be read, newest first; of another one the log tells, it stays."""

    async def list_versions(self) -> list[StoredVersion]:
        """Return every version that something is there of, also what a writer or a removal left half done."""

    async def delete_version(self, role: Role, version: str) -> None:
        """Remove a version; one that is not there is no error."""

    async def delete_release(self, release_id: str) -> None:
        """Remove a release (not its versions); one that is not there is no error."""

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Remove a checkpoint (not its release); one that is not there is no error."""


def open_store(url: str, bus: Bus | None) -> ArtifactStore:
    """Return the store that a URL names: "dir:/absolute/path" or "nats:" (the object store of `bus`).

    Raises:
        InvalidInputError: any other URL, or "nats:" without a bus.
    """
    # Imported here: the two stores build on this module's protocol and checks.
    from shammah_chassis.directory_store import DirectoryStore
    from shammah_chassis.object_store import ObjectStore

    kind, _, rest = url.partition(":")
    if kind == "dir" and rest.startswith("/"):
        return DirectoryStore(Path(rest))
    if kind == "nats" and not rest:
        if bus is None:
            raise InvalidInputError('store "nats:" needs a connection to NATS')
        return ObjectStore(bus)
    raise InvalidInputError(f'store URL {url!r} is not known; allowed: "dir:/absolute/path" or "nats:"')


def is_version_name(version: str) -> bool:
    """Say whether a version may have this name."""
    return bool(_NAME.fullmatch(version))


def check_version_name(role: str, version: str) -> None:
    """Refuse names that could leave the store's folder.

    Raises:
        InvalidInputError: names the role or version and what is allowed.
    """
    if role not in ROLES:
        raise InvalidInputError(f"role {role!r} is none of {', '.join(ROLES)}")
    if not is_version_name(version):
        raise InvalidInputError(f"version {version!r} is no name; allowed: letters, digits, '.', '_', '-'")


def check_manifest(manifest: Manifest) -> None:
    """Check what a manifest names before anything is stored under it.

    Raises:
        ArtifactError: no files, or a file name that is not a plain name.
        InvalidInputError: as `check_version_name`.
    """
    check_version_name(manifest.role, manifest.version)
    if not manifest.files:
        raise ArtifactError(f"version {manifest.version}: the manifest lists no files")
    for name in manifest.files:
        if not _NAME.fullmatch(name) or name == MANIFEST_NAME:
            raise ArtifactError(f"version {manifest.version}: {name!r} is not allowed as a file name")


def decode_text(data: bytes, name: str) -> str:
    """Return the text of a release, checkpoint or manifest; ArtifactError when its bytes are none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{name} is damaged: {error}") from error


def require_same_files(stored: Manifest, wanted: Manifest) -> None:
    """Accept a second publication of the same files; ArtifactError for other files under the same name."""
    if stored.files != wanted.files:
        names = sorted(
            name
            for name in stored.files.keys() | wanted.files.keys()
            if stored.files.get(name) != wanted.files.get(name)
        )
        raise ArtifactError(
            f"version {wanted.version} of {wanted.role} is already published with other files "
            f"({', '.join(names)}); a published name never changes"
        )
