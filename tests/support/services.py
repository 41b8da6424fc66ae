"""Services in this process, on free ports, with real channels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from grpc import aio
from shammah_chassis.channels import channel
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.manifest import MANIFEST_NAME, Manifest, Role, describe_files, version_name
from shammah_chassis.releases import Release
from shammah_chassis.serving import Build, Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.token_book import write_tokens
from support.artifacts import make_release

S = TypeVar("S", bound=ServiceSettings)
LIMIT_SECONDS = 10.0


@dataclass
class Running:
    """A started service and the clear tokens that it knows."""

    service: Service
    tokens: dict[str, str]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.service.port}"

    async def get(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Ask the admin HTTP; return status and body."""
        answer = await send_http(self.service.admin_port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body


async def send_http(port: int, data: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), LIMIT_SECONDS)
    writer.close()
    return answer.decode()


def make_settings(kind: type[S], folder: Path, **changes: object) -> tuple[S, dict[str, str]]:
    """Settings with everything below `folder`, an owner, an internal and a guest token."""
    grants = {"owner": ["ask", "admin", "serve"], "internal": ["serve"], "guest": ["ask"]}
    tokens = write_tokens(folder / "tokens.json", grants)
    values: dict[str, Any] = {
        "data_dir": folder,
        "tokens_file": folder / "tokens.json",
        "ready_file": folder / "run" / "ready.json",
        # Nobody listens there: the pod must live without a bus.
        "nats_url": "nats://127.0.0.1:9",
        "drain_seconds": 5.0,
    }
    return kind(**(values | changes)), tokens


@asynccontextmanager
async def serve(settings: ServiceSettings, tokens: dict[str, str], build: Build) -> AsyncIterator[Running]:
    """Run a service while the block runs, then stop it in order."""
    service = Service(settings, name="test")
    try:
        await service.start(build)
        yield Running(service, tokens)
    finally:
        await service.stop()


@asynccontextmanager
async def connect(running: Running, caller: str | None = "internal") -> AsyncIterator[aio.Channel]:
    """Open a channel with the token of `caller` (None: without any)."""
    opened = channel(running.target, running.tokens[caller] if caller else None)
    try:
        yield opened
    finally:
        await opened.close()


def parts_of(*servicers: tuple[Any, Any], **others: Any) -> Build:
    """Parts without any engine."""

    async def build() -> ServiceParts:
        defaults: dict[str, Any] = {"service_names": ["shammah.v1.RouterService"], "ready": lambda: True}
        return ServiceParts(servicers=servicers, **(defaults | others))

    return build


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail after a bounded time."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


def write_manifest(folder: Path, role: Role, *, config: dict[str, Any], labels: tuple[str, ...] = ()) -> Manifest:
    """Describe a folder of role files as a version."""
    files = describe_files(folder)
    manifest = Manifest(
        role=role,
        version=version_name(role, files),
        parent="",
        step=0,
        created_at=1.0,
        config=config,
        files=files,
        labels=labels,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    return manifest


async def publish(store: DirectoryStore, folder: Path, manifest: Manifest, **changes: Any) -> Release:
    """Publish a version and a release that has it."""
    await store.publish_version(folder, manifest)
    release = replace(make_release(**{manifest.role: manifest.version}), **changes)
    await store.publish_release(release)
    return release


def remember_wanted(settings: ServiceSettings, role: Role, *releases: str) -> None:
    """Write the wish that a pod recalls while the bus is away."""
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"releases": releases, "candidate": ""})
    (settings.cache_dir / f"{role}.wanted.json").write_text(text, "utf-8")
