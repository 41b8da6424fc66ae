"""Where `shammah` begins: `shammah mcp` straight away, everything else by the whole command line.

An MCP client waits for the start of `shammah mcp`, and the whole command line takes most of that time to import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

_OPTIONS = ("--data-dir", "--url")


def main() -> None:
    """Run the command line."""
    found = read_mcp(sys.argv[1:])
    if found is None:
        from shammah_gateway.cli.main import main as run  # here: it is what takes the time

        run()
        return
    from shammah_gateway.cli.mcp import serve
    from shammah_gateway.cli.paths import default_data_dir

    serve(Path(found["--data-dir"] or default_data_dir()).absolute(), found["--url"])


def read_mcp(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the options of a plain `[--data-dir X] mcp [--url U]`; None for whatever else, help and mistakes too."""
    found = dict.fromkeys(_OPTIONS, "")
    rest = list(arguments)
    while rest and rest[0] != "mcp":
        if rest[0] != "--data-dir" or len(rest) < 2:
            return None
        found["--data-dir"] = rest[1]
        rest = rest[2:]
    if not rest:
        return None
    own = rest[1:]
    if own and (own[0] != "--url" or len(own) != 2):
        return None
    found["--url"] = own[1] if own else ""
    return found
