"""What MCP adds to a tool call over HTTP and over `shammah mcp`, in both eras; and how soon the latter starts.

A gateway with scripted roles runs in a process of its own. The added time of a call is the client's time minus the
student's own (`latency_seconds` of query_local_model): protocol, tokens, scopes, schemas, audit log and the client.
Writes `mcp_overhead_ms`, `mcp_stdio_overhead_ms` and `mcp_start_seconds` into `results/tools.json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2
import uvloop
from gateway_runs import describe
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from shammah_chassis.bus import Bus
from shammah_chassis.nats_server import NatsServer
from support.mcp_site import ERAS, serve_mcp_site
from system import Figure
from tools_results import write_figures

REPETITIONS = 5
CALLS = 200
WARM = 30
STARTS = 7
ARGUMENTS = {"query": "Where is Rome?"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the gateway under measurement is."""

    base: str
    token: str


async def serve() -> None:
    """Be the gateway: print the place as JSON, serve until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        nats = NatsServer.start(Path(folder) / "nats")
        try:
            bus = await Bus.connect(nats.url)
            await bus.ensure()
            async with serve_mcp_site(Path(folder), bus, nats.url) as site:
                print(json.dumps({"base": site.base, "token": site.cluster.tokens["owner"]}), flush=True)
                await asyncio.to_thread(sys.stdin.read)
            await bus.close()
        finally:
            nats.stop()


def shim(place: Place) -> StdioServerParameters:
    """Return how `shammah mcp` is started."""
    env = {**os.environ, "SHAMMAH_URL": place.base, "SHAMMAH_TOKEN": place.token}
    return StdioServerParameters(command=str(Path(sys.executable).with_name("shammah")), args=["mcp"], env=env)


async def measure(place: Place, face: str, mode: str) -> float:
    """Return the median of the added milliseconds of a call."""
    async with AsyncExitStack() as stack:
        transport: Any
        if face == "http":
            headers = {"authorization": f"Bearer {place.token}"}
            link = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            transport = streamable_http_client(f"{place.base}/mcp", http_client=link)
        else:
            transport = stdio_client(shim(place))
        client = await stack.enter_async_context(Client(transport, mode=mode))
        added = []
        for turn in range(WARM + CALLS):
            started = time.perf_counter()
            result = await client.call_tool("query_local_model", ARGUMENTS)
            spent = time.perf_counter() - started
            if result.is_error:
                raise SystemExit(f"the call failed: {result.content}")
            if turn >= WARM:
                added.append(1000.0 * (spent - result.structured_content["latency_seconds"]))
        return statistics.median(added)


async def measure_start(place: Place, mode: str) -> float:
    """Return the seconds from the start of the process to the list of tools."""
    started = time.perf_counter()
    async with Client(stdio_client(shim(place)), mode=mode) as client:
        await client.list_tools()
        return time.perf_counter() - started


async def compare(place: Place) -> list[Figure]:
    """Measure everything in turns, so that a busy moment of the machine meets all alike."""
    added: dict[tuple[str, str], list[float]] = {(face, era): [] for face in ("http", "stdio") for era in ERAS}
    for _ in range(REPETITIONS):
        for (face, era), values in added.items():
            values.append(await measure(place, face, ERAS[era]))
    starts = [await measure_start(place, mode) for mode in list(ERAS.values()) * STARTS]
    figures = []
    for face, name in (("http", "mcp_overhead_ms"), ("stdio", "mcp_stdio_overhead_ms")):
        medians = {era: statistics.median(added[face, era]) for era in ERAS}
        words = "; ".join(f"{era}: {describe(added[face, era], ' ms')}" for era in ERAS)
        note = f"p50 beyond the student's own time, {CALLS} calls a repetition, the slower era; {words}; {load()}"
        figures.append(Figure(name, max(medians.values()), "ms", note=note))
    note = f"spawn of `shammah mcp` to its list of tools, both eras; {describe(starts, ' s')}; {load()}"
    figures.append(Figure("mcp_start_seconds", statistics.median(starts), "s", note=note))
    return figures


def load() -> str:
    """Return how busy the machine is."""
    return f"load average {os.getloadavg()[0]:.1f}"


async def run() -> None:
    """Start the gateway, measure, write."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        place = Place(**json.loads(await process.stdout.readline()))
        figures = await compare(place)
    finally:
        process.stdin.close()
        await process.wait()
    for figure in figures:
        print(f"{figure.id}: {figure.value:.3g} {figure.unit} ({figure.note})")
    write_figures(figures, command="make bench-tools")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        uvloop.run(serve())
    else:
        asyncio.run(run())
