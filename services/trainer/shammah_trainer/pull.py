"""`python -m shammah_trainer.pull`: fetch the base models now and print where they are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shammah_chassis.errors import ShammahError

from shammah_trainer.base_models import SOURCES, find_models_dir, pull


def main(arguments: list[str] | None = None) -> int:
    """Pull and print; 0 when both models are there, 1 with the reason on stderr when not."""
    parser = argparse.ArgumentParser(prog="python -m shammah_trainer.pull", description=__doc__)
    parser.add_argument("--dir", type=Path, default=find_models_dir(), help="cache folder (default %(default)s)")
    parser.add_argument("--source", action="append", choices=SOURCES, help="ask only this source; may be repeated")
    chosen = parser.parse_args(arguments)
    try:
        models = pull(
            chosen.dir, sources=chosen.source or SOURCES, progress=lambda text: print(text, file=sys.stderr, flush=True)
        )
    except ShammahError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    print(f"generator {models.generator}\nencoder   {models.encoder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
