"""Real tiny versions of the three roles, published with a release in a directory store."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import load_file, save_file
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.manifest import Manifest, load_json
from shammah_chassis.releases import Release
from shammah_generator.graph import write_graphs
from shammah_trainer.encoders.base import make_base_router, make_base_validator
from support.services import publish, write_manifest
from support.tiny import make_tiny_encoder, make_tiny_generator


def make_router_version(folder: Path) -> Manifest:
    """Write a tiny router as release 0 has it: no categories yet."""
    result = make_base_router(make_tiny_encoder(folder.with_name("encoder")), folder)
    return write_manifest(folder, "router", config=result.config, labels=result.labels)


def make_validator_version(folder: Path) -> Manifest:
    """Write a tiny validator as release 0 has it."""
    result = make_base_validator(make_tiny_encoder(folder.with_name("encoder")), folder)
    return write_manifest(folder, "validator", config=result.config, labels=result.labels)


def make_generator_version(folder: Path, *, seed: int = 0, endless: bool = False) -> Manifest:
    """Write a tiny generator; an endless one is slower and never ends a response by itself."""
    size = {"layers": 6, "hidden": 192, "max_positions": 4096} if endless else {}
    make_tiny_generator(folder, seed=seed, **size)
    if endless:
        _silence_ends(folder / "model.safetensors")
    config = load_json(folder / "config.json")
    write_graphs(folder, config)
    return write_manifest(folder, "generator", config=config)


async def publish_generator(root: Path, *, seed: int = 0, endless: bool = False, precision: str = "fp32") -> Release:
    """Publish a tiny generator below `root`/store and return its release."""
    folder = root / f"generator-{seed}-{endless}"
    manifest = make_generator_version(folder, seed=seed, endless=endless)
    return await publish(DirectoryStore(root / "store"), folder, manifest, precision=precision)


def _silence_ends(path: Path) -> None:
    """Give the control tokens (ids 0 to 2) zero rows: their logit is 0, below the best of the others."""
    weights = load_file(path)
    weights["model.embed_tokens.weight"][:3] = 0.0
    save_file(weights, path, {"format": "pt"})
