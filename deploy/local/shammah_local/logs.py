"""Logs of a bounded size: what is over the bound moves into one older file beside, while the part writes on.

It knows files, not who writes them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shammah_chassis.private import open_private_log

MOST_BYTES = 32 << 20
LOOK_SECONDS = 10.0


def bound_log(log: Path, *, most: int = MOST_BYTES) -> None:
    """Copy the last `most` bytes of a log that has more to `LOG.1` and cut the log. Blocking.

    The writer keeps its descriptor, which must be open for appending. Lines that it writes in the instant between copy
    and cut are lost.
    """
    try:
        size = log.stat().st_size
        if size <= most:
            return
        with log.open("r+b") as source, open_private_log(log.with_name(f"{log.name}.1"), anew=True) as target:
            source.seek(size - most)
            source.readline()  # the rest of a line whose beginning is left out
            shutil.copyfileobj(source, target)
            target.flush()
            os.ftruncate(source.fileno(), 0)
    except OSError:
        # No log yet, or a full disk: then it stays as it is, and the next look tries again.
        return
