"""`python -m shammah_local up|down|status`: the whole of Shammah on one machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.spawning import EXIT_SETTINGS

from shammah_local.commands import NOT_RUNNING, down, make_embedded_plan, up, up_detached
from shammah_local.known import refuse_unknown
from shammah_local.layout import Layout
from shammah_local.plan import parse_overrides
from shammah_local.status import format_status, read_status
from shammah_local.supervisor import START_SECONDS


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="shammah_local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start everything and stay")
    start.add_argument("--detach", action="store_true", help="stay in the background; returns when all is ready")
    start.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="SHAMMAH_X=Y", help="a setting of a service"
    )
    start.add_argument("--start-timeout", type=float, default=START_SECONDS, metavar="SECONDS")
    stop = commands.add_parser("down", help="stop everything and wait for it")
    show = commands.add_parser("status", help="what runs")
    show.add_argument("--json", action="store_true")
    for command in (start, stop, show):
        command.add_argument("--data-dir", type=Path, required=True)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Do what was asked and return the exit code."""
    layout = Layout(options.data_dir.absolute())
    if options.command == "down":
        return down(layout)
    if options.command == "status":
        return show_status(layout, as_json=options.json)
    # First of all: who starts this in the background is told at once, and nothing runs yet.
    refuse_unknown([*os.environ, *parse_overrides(options.settings)])
    if options.detach:
        settings = [word for text in options.settings for word in ("--set", text)]
        timeout = ["--start-timeout", str(options.start_timeout)]
        program = [sys.executable, "-m", "shammah_local", "up", "--data-dir", str(layout.root)]
        return up_detached(layout, [*program, *timeout, *settings])
    return up(layout, lambda own: make_embedded_plan(own, options.settings), start_seconds=options.start_timeout)


def show_status(layout: Layout, *, as_json: bool) -> int:
    """Print what runs; exit code 0 when ready, 1 while it starts or stops, 3 when nothing runs."""
    state = read_status(layout)
    if as_json:
        print(json.dumps({"running": state is not None, **(state or {})}))
    else:
        print(format_status(state) if state else f"nothing runs on {layout.root}")
    if state is None:
        return NOT_RUNNING
    return 0 if state["state"] == "ready" else 1


def main() -> int:
    """Run the command line; named errors become one line and exit code 1, or 78 where settings are wrong."""
    try:
        return run(parse_arguments(sys.argv[1:]))
    except ShammahError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        return EXIT_SETTINGS if isinstance(error, InvalidInputError) else 1


if __name__ == "__main__":
    sys.exit(main())
