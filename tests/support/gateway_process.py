"""A gateway in a process of its own, over scripted pods, that a test kills with -9 and starts again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shammah.v1 import gateway_pb2_grpc
from shammah_chassis.channels import channel
from support.scripted_pods import Cluster

START_SECONDS = 60.0


@dataclass
class GatewayProcess:
    """One gateway; `settings` are its variables without the prefix, lists joined by commas."""

    cluster: Cluster
    settings: dict[str, Any]
    process: asyncio.subprocess.Process | None = None
    links: list[Any] = field(default_factory=list)

    @property
    def ready_file(self) -> Path:
        return self.cluster.folder / "run" / "gateway.json"

    @property
    def jobs(self) -> Path:
        return self.cluster.folder / "gateway" / "jobs"

    async def start(self) -> Any:
        """Start it and return the owner's stub once it takes calls."""
        self.ready_file.unlink(missing_ok=True)
        self.ready_file.parent.mkdir(exist_ok=True)
        values = {
            **self.cluster.settings("gateway"),
            **{f"{role}_targets": ",".join(targets) for role, targets in self.cluster.targets.items()},
            "ready_file": self.ready_file,
            **self.settings,
        }
        variables = {f"SHAMMAH_GATEWAY_{name.upper()}": str(value) for name, value in values.items()}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shammah_gateway", env={**os.environ, **variables}
        )
        async with asyncio.timeout(START_SECONDS):
            while not self._is_ready():
                await asyncio.sleep(0.05)
        link = channel(f"127.0.0.1:{json.loads(self.ready_file.read_text())['port']}", self.cluster.tokens["owner"])
        self.links.append(link)
        return gateway_pb2_grpc.GatewayServiceStub(link)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it at once (or as the signal says) and wait until it is gone."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    def _is_ready(self) -> bool:
        assert self.process is not None and self.process.returncode is None, "the gateway did not start"
        return self.ready_file.exists()


@asynccontextmanager
async def gateway_process(cluster: Cluster, **settings: Any) -> AsyncIterator[GatewayProcess]:
    """A gateway that is not started yet; whatever runs at the end is killed."""
    gateway = GatewayProcess(cluster, settings)
    try:
        yield gateway
    finally:
        for link in gateway.links:
            await link.close()
        await gateway.kill()
