"""Serving pods with the real chassis (held versions, leases, ModelService) and scripted roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shammah.v1 import (
    generator_pb2,
    generator_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    types_pb2,
    validator_pb2,
    validator_pb2_grpc,
)
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError
from shammah_chassis.held import Loader
from shammah_chassis.manifest import ROLES, Manifest, Role
from shammah_chassis.pod import Pod
from shammah_chassis.releases import CategoryPolicy, Release
from shammah_chassis.serving import Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.token_book import write_tokens
from shammah_chassis.ulid import new_ulid
from support.artifacts import make_version

GRANTS = {
    "owner": ["ask", "compare", "generate", "analyze", "train", "audit", "admin"],
    "guest": ["ask"],
    "maker": ["ask", "generate"],
    "internal": ["serve"],
}


@dataclass
class Script:
    """What the scripted roles say.

    `refuse` are releases that a role can't load; `slow` delays the generator; `gates` holds a call of that name back
    ("compare") until the event is set.
    """

    category: str = "capitals"
    probability: float = 0.9
    quality: float = 0.9
    refuse: set[tuple[str, str]] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    slow: float = 0.0

    def reply(self, query: str) -> str:
        return f"local: {query}"


class ScriptedRouter(router_pb2_grpc.RouterServiceServicer):
    def __init__(self, pod: Pod[str], script: Script) -> None:
        self._pod, self._script = pod, script

    async def Route(self, request: router_pb2.RouteRequest, context: Any) -> router_pb2.RouteResponse:
        with self._pod.held.lease(request.release) as leased:
            return router_pb2.RouteResponse(
                local_probability=self._script.probability,
                category=self._script.category,
                category_probability=0.9,
                release=leased.release,
                version=leased.version,
            )


class ScriptedGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, pod: Pod[str], script: Script) -> None:
        self._pod, self._script = pod, script

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        with self._pod.held.lease(request.release) as leased:
            text = self._script.reply(request.messages[-1].content)
            yield generator_pb2.GenerateResponse(text=text[:3], release=leased.release, version=leased.version)
            await asyncio.sleep(self._script.slow)
            yield generator_pb2.GenerateResponse(
                text=text[3:],
                finish_reason=generator_pb2.FINISH_REASON_STOP,
                statistics=types_pb2.GenerationStatistics(sum_logprob=-1.0, length=2),
                release=leased.release,
                version=leased.version,
            )


class ScriptedValidator(validator_pb2_grpc.ValidatorServiceServicer):
    def __init__(self, pod: Pod[str], script: Script) -> None:
        self._pod, self._script = pod, script

    async def Validate(self, request: validator_pb2.ValidateRequest, context: Any) -> validator_pb2.ValidateResponse:
        with self._pod.held.lease(request.release) as leased:
            scores = validator_pb2.TextScores(
                on_topic=0.9,
                coherence=0.8,
                hallucination=0.1,
                hallucination_risk=validator_pb2.RISK_LEVEL_LOW,
            )
            return validator_pb2.ValidateResponse(
                quality=self._script.quality, scores=scores, release=leased.release, version=leased.version
            )

    async def Compare(self, request: validator_pb2.CompareRequest, context: Any) -> validator_pb2.CompareResponse:
        if gate := self._script.gates.get("compare"):
            await gate.wait()
        same = request.response_a == request.response_b
        return validator_pb2.CompareResponse(
            quality_a=0.9, quality_b=0.8, cosine=1.0 if same else 0.2, same_facts=same, similarity=1.0 if same else 0.1
        )


_SERVICES: dict[str, tuple[Any, Any, str]] = {
    "router": (router_pb2_grpc.add_RouterServiceServicer_to_server, ScriptedRouter, "RouterService"),
    "generator": (generator_pb2_grpc.add_GeneratorServiceServicer_to_server, ScriptedGenerator, "GeneratorService"),
    "validator": (validator_pb2_grpc.add_ValidatorServiceServicer_to_server, ScriptedValidator, "ValidatorService"),
}


@dataclass
class Cluster:
    """Running pods: `services` by role, tokens, and what the roles say."""

    folder: Path
    store: DirectoryStore
    script: Script
    nats_url: str
    tokens: dict[str, str]
    services: dict[str, list[Service]] = field(default_factory=dict)

    @property
    def targets(self) -> dict[str, list[str]]:
        return {role: [f"127.0.0.1:{one.port}" for one in services] for role, services in self.services.items()}

    def settings(self, name: str) -> dict[str, Any]:
        return {
            "data_dir": self.folder,
            "tokens_file": self.folder / "tokens.json",
            "nats_url": self.nats_url,
            "cache_dir": self.folder / "cache" / name,
            "drain_seconds": 2.0,
        }

    async def start_pod(self, role: Role, name: str, *, port: int = 0) -> Service:
        settings = ServiceSettings(**self.settings(name), port=port)
        script = self.script

        def load(folder: Path, manifest: Manifest, release: Release) -> str:
            if (role, release.id) in script.refuse:
                raise ArtifactError(f"{role} can't load {release.id}")
            return manifest.version

        pod = Pod[str](settings, role=role, loader=Loader(load=load, close=lambda _: None))
        add, servicer, service = _SERVICES[role]

        async def build() -> ServiceParts:
            return await pod.build(lambda made: (add, servicer(made, script), f"shammah.v1.{service}"))

        started = Service(settings, name=name)
        await started.start(build)
        self.services.setdefault(role, []).append(started)
        return started

    async def publish_release(self, **changes: Any) -> Release:
        """Publish three new tiny versions and a release of them (verdict "promote" unless changed)."""
        identity = new_ulid()
        names: dict[str, str] = {}
        for role in ROLES:
            folder = self.folder / "made" / identity / role
            manifest = make_version(folder, role, content=f"{identity} {role}".encode())
            await self.store.publish_version(folder, manifest)
            names[role] = manifest.version
        release = Release(
            id=identity,
            parent="",
            created_at=1.0,
            verdict="promote",
            categories={"capitals": CategoryPolicy(threshold=0.8, rows=100, accuracy=0.9)},
            **names,
        )
        release = replace(release, **changes)
        await self.store.publish_release(release)
        return release


@asynccontextmanager
async def run_cluster(folder: Path, nats_url: str, *, pods: int = 1) -> AsyncIterator[Cluster]:
    """Run pods of every role while the block runs."""
    tokens = write_tokens(folder / "tokens.json", GRANTS)
    cluster = Cluster(folder, DirectoryStore(folder / "store"), Script(), nats_url, tokens)
    async with AsyncExitStack() as stack:
        for role in ROLES:
            for index in range(pods):
                started = await cluster.start_pod(role, f"{role}-{index}")
                stack.push_async_callback(started.stop)
        yield cluster
