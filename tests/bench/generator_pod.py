"""A generator pod as a process of its own, without a bus: it serves one release that it is told to remember."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from generator_runs import BASE
from grpc import aio
from safetensors.numpy import load_file, save_file
from shammah_chassis.channels import channel
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.manifest import MANIFEST_NAME, Manifest, describe_files, load_json, version_name
from shammah_chassis.releases import Release, Wanted
from shammah_chassis.token_book import write_tokens
from shammah_chassis.ulid import new_ulid
from shammah_generator.graph import write_graphs

_START_SECONDS = 120.0
_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod that answers, and the release that it holds."""

    opened: aio.Channel
    release: str


def write_version(folder: Path, *, seed: int = 0, endless: bool = False) -> Manifest:
    """Write a version made from the base model.

    Args:
        folder: where; made if need be.
        seed: not 0: the weights are changed by a thousandth, as by a fine-tuning, so the digest is a new one.
        endless: the rows of the control tokens are zero, so that their logits are 0 and a response does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(BASE / "tokenizer.json", folder / "tokenizer.json")
    config = load_json(BASE / "config.json")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    weights = load_file(BASE / "model.safetensors")
    if seed:
        for values in weights.values():
            values *= 1 + 1e-3 * seed
    if endless:
        weights[_EMBEDDING][:3] = 0.0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_graphs(folder, config)
    files = describe_files(folder)
    manifest = Manifest(
        role="generator",
        version=version_name("generator", files),
        parent="",
        step=0,
        created_at=time.time(),
        config=config,
        files=files,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    return manifest


def make_release(version: str, precision: str) -> Release:
    """Return a release of this generator version; the other roles are not asked."""
    return Release(
        id=new_ulid(),
        parent="",
        created_at=time.time(),
        router="none",
        generator=version,
        validator="none",
        verdict="base",
        precision=precision,
    )


@asynccontextmanager
async def running_pod(
    root: Path, version: Path, manifest: Manifest, *, precision: str, settings: Mapping[str, object]
) -> AsyncIterator[RunningPod]:
    """Publish the version below `root`, start `python -m shammah_generator` on it, and stop that at the end."""
    store, data = DirectoryStore(root / "store"), root / "pod"
    await store.publish_version(version, manifest)
    release = make_release(manifest.version, precision)
    await store.publish_release(release)
    # A pod that finds no bus serves what it last held.
    (data / "cache").mkdir(parents=True)
    wanted = Wanted((release.id,))
    (data / "cache/generator.wanted.json").write_text(wanted.to_json(), "utf-8")
    token = write_tokens(data / "tokens.json")["internal"]
    given = {
        "DATA_DIR": data,
        "STORE_URL": f"dir:{root}/store",
        "NATS_URL": "nats://127.0.0.1:9",
        "TOKENS_FILE": data / "tokens.json",
        "READY_FILE": data / "ready.json",
        "PRECISION": precision,
        "LOG_LEVEL": "ERROR",
        **settings,
    }
    environment = {f"SHAMMAH_GENERATOR_{name}": str(value) for name, value in given.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shammah_generator", env={**os.environ, **environment}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _wait_ready(process, data / "ready.json")
        port = json.loads((data / "ready.json").read_text("utf-8"))["port"]
        async with channel(f"127.0.0.1:{port}", token) as opened:
            yield RunningPod(opened, release.id)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _wait_ready(process: asyncio.subprocess.Process, ready_file: Path) -> None:
    limit = time.monotonic() + _START_SECONDS
    while not await asyncio.to_thread(ready_file.exists):
        if process.returncode is not None or time.monotonic() > limit:
            raise SystemExit("the generator pod did not start")
        await asyncio.sleep(0.1)
