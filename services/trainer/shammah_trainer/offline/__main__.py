"""`python -m shammah_trainer.offline`: the command line of studies; each command calls the file that does the work."""

from __future__ import annotations

import os

# Read when torch is loaded; see `shammah_trainer.__main__`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(min(4, os.cpu_count() or 1)))

import sys
import time

from shammah_chassis.errors import ShammahError

from shammah_trainer.offline.arguments import parse_arguments
from shammah_trainer.offline.commands import COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 with the error on stderr."""
    chosen = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    started = time.monotonic()
    try:
        COMMANDS[chosen.command](chosen)
    except ShammahError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        return 1
    print(f"{chosen.command}: {time.monotonic() - started:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
