"""Small versions, releases and checkpoints for tests of stores and of what holds versions."""

from __future__ import annotations

from pathlib import Path

from shammah_chassis.checkpoints import Checkpoint
from shammah_chassis.manifest import MANIFEST_NAME, Manifest, Role, describe_files, version_name
from shammah_chassis.releases import CategoryPolicy, Release
from shammah_chassis.ulid import new_ulid


def make_version(folder: Path, role: Role = "router", *, content: bytes = b"weights", **files: bytes) -> Manifest:
    """Write a version folder (with its manifest) and return the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {"model.safetensors": content, "tokenizer.json": b"{}", **files}.items():
        (folder / name).write_bytes(data)
    entries = describe_files(folder)
    manifest = Manifest(
        role=role, version=version_name(role, entries), parent="", step=0, created_at=1.0, config={}, files=entries
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    return manifest


def make_release(router: str = "r", generator: str = "g", validator: str = "v", *, now: float | None = None) -> Release:
    """Return a release over three version names."""
    return Release(
        id=new_ulid(now),
        parent="",
        created_at=1.0,
        router=router,
        generator=generator,
        validator=validator,
        verdict="promote",
        categories={"math": CategoryPolicy(threshold=0.5, rows=100)},
    )


def make_checkpoint(release: str, *, now: float | None = None) -> Checkpoint:
    """Return a checkpoint of a release."""
    return Checkpoint(
        id=new_ulid(now), release=release, position=7, queries=100, metrics={"a": 1.0}, created_at=1.0, reason="test"
    )
