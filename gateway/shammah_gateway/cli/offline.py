"""`learn --offline`: hands the rest of the line to the trainer's own program, as only the trainer has torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from typer.core import TyperCommand

from shammah_gateway.cli.console import err

OFFLINE = "--offline"


class LearnCommand(TyperCommand):
    """`learn`, whose line is the trainer's affair once `--offline` is in it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer hides its copy of click
        """Run the trainer's program and end with its exit code, or parse the line as usual."""
        if OFFLINE in args:
            ctx.exit(run_offline([item for item in args if item != OFFLINE]))
        return super().parse_args(ctx, args)


def run_offline(arguments: list[str]) -> int:
    """Run `python -m shammah_trainer.offline run` with these arguments; return its exit code."""
    if find_spec("shammah_trainer") is None:
        err.print("[red]unavailable[/red]: the trainer is not installed here; learn --offline needs it")
        return 1
    command = [sys.executable, "-m", "shammah_trainer.offline", "run", *arguments]
    return subprocess.run(command, check=False).returncode
