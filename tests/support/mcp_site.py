"""A gateway with /mcp on a free loopback port: real bus, pods' chassis, tools and jobs; scripted roles and trainer.

And MCP clients of it in both protocol eras, over HTTP and over `shammah mcp`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from shammah.v1 import trainer_pb2_grpc
from shammah_chassis.bus import Bus
from shammah_chassis.examples import Example
from shammah_chassis.releases import Champion, Wanted
from shammah_chassis.serving import Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_gateway.config import GatewaySettings
from shammah_gateway.gateway import Gateway
from shammah_gateway.http.opening import OpenHttp, open_http
from shammah_gateway.opening import open_gateway
from support.example_values import make_example
from support.scripted_pods import Cluster, run_cluster
from support.scripted_trainer import ScriptedTrainer
from support.services import until

ERAS = {"2026-07-28": "auto", "2025-11-25": "legacy"}
FACES = ("http", "stdio")


@dataclass
class McpSite:
    """What runs: `calls` of the roles and the trainer are scripted, the rest is the gateway's own."""

    cluster: Cluster
    trainer: ScriptedTrainer
    gateway: Gateway
    http: OpenHttp
    folder: Path

    @property
    def base(self) -> str:
        assert self.http.server is not None
        return f"http://127.0.0.1:{self.http.server.port}"

    @property
    def url(self) -> str:
        return f"{self.base}/mcp"

    def headers(self, caller: str = "owner") -> dict[str, str]:
        return {"authorization": f"Bearer {self.cluster.tokens[caller]}"}


@asynccontextmanager
async def serve_mcp_site(folder: Path, bus: Bus, nats_url: str, **settings: Any) -> AsyncIterator[McpSite]:
    """Serve while the block runs, with a champion and 60 dev examples."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(run_cluster(folder, nats_url))
        trainer = ScriptedTrainer(rows={"capitals": (50, 0), "poems": (0, 0)}, dev=dev_examples())
        target = await stack.enter_async_context(_serve_trainer(cluster, trainer))
        (folder / "internal.token").write_text(cluster.tokens["internal"])
        first = await cluster.publish_release(verdict="base")
        await bus.kv_create("wanted", Wanted((first.id,)).to_json())
        await bus.kv_create("champion", Champion(first.id).to_json())
        values: dict[str, Any] = {
            **cluster.settings("gateway"),
            **{f"{role}_targets": targets for role, targets in cluster.targets.items()},
            "trainer_target": target,
            "internal_token_file": folder / "internal.token",
            "teacher": "recorded",
            "recorded_files": (write_workload(folder / "w.jsonl"),),
            "audit_rate": 0.0,
            "explore_rate": 0.0,
            "role_timeout_seconds": 10.0,
            "http_port": 0,
        }
        gateway = await open_gateway(GatewaySettings(**(values | settings)))
        gateway.start()
        stack.push_async_callback(gateway.close)
        http = await open_http(gateway)
        stack.push_async_callback(http.close)
        await until(lambda: (now := gateway.releases.champion()) is not None and now.id == first.id)
        yield McpSite(cluster, trainer, gateway, http, folder)


def dev_examples(count: int = 60) -> list[Example]:
    """Dev rows of two categories; the student gets every second one right."""

    def row(category: str, index: int) -> Example:
        query = f"{category} test {index}"
        response = f"local: {query}" if index % 2 else "something else"
        return make_example(query, response, category=category, grader="exact")

    return [row(category, index) for category in ("capitals", "poems") for index in range(count // 2)]


def write_workload(path: Path) -> Path:
    """Write what the recorded teacher knows: 40 rows of two categories."""
    rows = [
        {
            "id": f"{category}-{index}",
            "source": "made",
            "license": "CC0",
            "category": category,
            "query": f"{category} query number {index}",
            "reference": f"answer {index}",
            "metadata": {"family": category, "metric": "label", "split": "teach"},
        }
        for category in ("capitals", "poems")
        for index in range(40)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@asynccontextmanager
async def connect(site: McpSite, face: str, mode: str, *, caller: str = "owner") -> AsyncIterator[Client]:
    """Open an MCP client of a site over "http" or "stdio"; `mode` is the SDK's: "auto" or "legacy"."""
    async with AsyncExitStack() as stack:
        if face == "http":
            link = await stack.enter_async_context(httpx2.AsyncClient(headers=site.headers(caller), timeout=60))
            transport = streamable_http_client(site.url, http_client=link)
        else:
            transport = stdio_client(shim_command(site, caller), errlog=sys.stderr)
        yield await stack.enter_async_context(Client(transport, mode=mode))


def shim_command(site: McpSite, caller: str = "owner") -> StdioServerParameters:
    """Return how `shammah mcp` is started for a site."""
    env = {**os.environ, "SHAMMAH_URL": site.base, "SHAMMAH_TOKEN": site.cluster.tokens[caller]}
    command = ["-m", "shammah_gateway.cli", "--data-dir", str(site.folder), "mcp"]
    return StdioServerParameters(command=sys.executable, args=command, env=env)


@asynccontextmanager
async def _serve_trainer(cluster: Cluster, trainer: ScriptedTrainer) -> AsyncIterator[str]:
    async def build() -> ServiceParts:
        add = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
        return ServiceParts([(add, trainer)], ["shammah.v1.TrainerService"], ready=lambda: True)

    service = Service(ServiceSettings(**cluster.settings("trainer")), name="trainer")
    await service.start(build)
    try:
        yield f"127.0.0.1:{service.port}"
    finally:
        await service.stop()
