"""`shammah mcp` and `shammah tools`: the five tools for Claude.

Nothing heavy is imported before it is needed: a client waits for the start of `shammah mcp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path


def serve(data_dir: Path, url: str) -> None:
    """Serve MCP on standard input and output until the client closes."""
    from shammah_gateway.mcp.endpoint import find_endpoint
    from shammah_gateway.mcp.pipes import Pipes
    from shammah_gateway.mcp.shim import serve_stdio

    pipes = Pipes.take_standard()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_stdio(lambda: find_endpoint(data_dir, url), pipes))


def print_tools(*, mcp: bool) -> None:
    """Print the definitions of the five tools as JSON: those of MCP, or those for the Messages API."""
    from shammah_gateway.tools.definitions import anthropic_tools, mcp_tools

    sys.stdout.write(json.dumps(mcp_tools() if mcp else anthropic_tools(), indent=1) + "\n")
