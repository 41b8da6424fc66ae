"""What one version of one role is: its manifest, the file that makes an artifact explain itself.

A version folder holds `manifest.json` and the files that it lists. The manifest knows names, sizes and digests;
how the files are moved is `artifacts`, what is in them is the role's own affair.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from shammah_chassis.errors import ArtifactError

Role = Literal["router", "generator", "validator"]
ROLES: tuple[Role, ...] = ("router", "generator", "validator")
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One role's immutable version.

    `config` is what the role's engine needs to load the files (for the generator: the Hugging Face `config.json`).
    `parent` is the version it was trained from ("" for the base). `position` is the last sequence number of the
    example log that it has learned from. `metrics`, `hyper` and `provenance` are free JSON for people and the gate.
    """

    role: Role
    version: str
    parent: str
    step: int
    created_at: float
    config: dict[str, Any]
    files: dict[str, FileEntry]
    position: int = 0
    labels: tuple[str, ...] = ()
    hyper: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def parse_manifest(text: str) -> Manifest:
    """Read a manifest.

    Raises:
        ArtifactError: not JSON, a field is missing or of the wrong type, or a newer format than this program knows.
    """
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise TypeError("not a JSON object")
        newest = int(raw["format_version"])
        if newest > FORMAT_VERSION:
            raise ArtifactError(f"manifest has format {newest}; this program reads up to {FORMAT_VERSION}")
        if raw["role"] not in ROLES:
            raise TypeError(f"role {raw['role']!r} is none of {', '.join(ROLES)}")
        files = {str(name): FileEntry(**entry) for name, entry in raw["files"].items()}
        return Manifest(**{**raw, "files": files, "labels": tuple(raw.get("labels", ()))})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"manifest can't be read: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` of a version folder.

    Raises:
        ArtifactError: as `parse_manifest`, or the file is missing or no text.
    """
    try:
        return parse_manifest((folder / MANIFEST_NAME).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{folder}: no readable {MANIFEST_NAME}: {error}") from error


def digest_file(path: Path) -> FileEntry:
    """Return size and SHA-256 of a file."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as source:
        while block := source.read(_CHUNK):
            digest.update(block)
            size += len(block)
    return FileEntry(size=size, sha256=digest.hexdigest())


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Return an entry for each plain file of a folder but the manifest itself."""
    return {
        path.name: digest_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST_NAME
    }


def version_name(role: Role, files: Mapping[str, FileEntry]) -> str:
    """Name a version by its content: the first 16 hex digits of the SHA-256 over names and digests."""
    text = json.dumps([role, sorted((name, entry.sha256) for name, entry in files.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def verify_folder(folder: Path, *, role: Role) -> Manifest:
    """Check a version folder in full: role, format, and size and digest of each file.

    Raises:
        ArtifactError: names the file and both digests (or sizes), or both roles.
    """
    manifest = read_manifest(folder)
    if manifest.role != role:
        raise ArtifactError(f"{folder.name}: made for role {manifest.role}, wanted {role}")
    for name, wanted in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{folder.name}: file {name} is missing")
        found = digest_file(path)
        if found != wanted:
            raise ArtifactError(
                f"{folder.name}/{name}: sha256 {found.sha256} ({found.size} bytes), "
                f"the manifest says {wanted.sha256} ({wanted.size} bytes)"
            )
    return manifest


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ArtifactError: missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return cast("dict[str, Any]", value)
