"""Rollouts as a file of JSON lines (gzip), so that they can be made on one machine, graded and used on another.

Lines are appended some at a time, each time as a gzip member of its own: what a kill leaves half written is cut off
when the file is opened again, and the rows that are there need not be computed again. It knows lines, no models.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import storage_errors, write_atomic
from shammah_chassis.errors import ArtifactError, NotFoundError

ROLLOUTS_NAME = "rollouts.jsonl.gz"
GRADED_NAME = "graded.jsonl.gz"
CANDIDATE, CHAMPION = "candidate", "champion"
_DIGITS = 8  # statistics are float32 at best


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLine:
    """One response. `generator` is "candidate" or "champion", `id` the example's, `limit` the tokens it was allowed.

    `reason` is how it ended (stop, length, error); `good` None: not graded, or it could not be (`detail` says why).
    """

    generator: str
    id: str
    limit: int
    text: str
    reason: str
    statistics: tuple[float, ...]
    good: bool | None = None
    detail: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """What a response is of: generator, example and limit."""
        return self.generator, self.id, self.limit


def read_lines(path: Path) -> list[RolloutLine]:
    """Read a whole file.

    Raises:
        NotFoundError: there is none. ArtifactError: it is damaged or has other lines.
    """
    if not path.is_file():
        raise NotFoundError(f"there are no rollouts {path}")
    lines, damage = _read(path)
    if damage:
        raise ArtifactError(f"{path} is damaged: {damage}; `rollouts` mends it and goes on")
    return lines


def open_for_more(path: Path) -> list[RolloutLine]:
    """Return the lines that are there already; a half-written end is cut off first."""
    if not path.is_file():
        return []
    lines, damage = _read(path)
    if damage:
        write_lines(path, lines)
    return lines


def append_lines(path: Path, lines: Iterable[RolloutLine]) -> None:
    """Add lines durably.

    Raises:
        StorageFullError: no room.
    """
    with storage_errors(str(path)), path.open("ab") as file:
        file.write(gzip.compress(_encode(lines), 6, mtime=0))
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, lines: Sequence[RolloutLine]) -> None:
    """Write a whole file in place of another."""
    write_atomic(path, gzip.compress(_encode(lines), 6, mtime=0))


def _encode(lines: Iterable[RolloutLine]) -> bytes:
    texts = []
    for line in lines:
        entry: dict[str, Any] = asdict(line)
        entry["statistics"] = [float(f"{value:.{_DIGITS}g}") for value in line.statistics]
        if line.good is None and not line.detail:
            del entry["good"], entry["detail"]
        texts.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(texts).encode()


def _read(path: Path) -> tuple[list[RolloutLine], str]:
    """Return the lines up to the first damage, and what that was ("" when there is none)."""
    lines: list[RolloutLine] = []
    try:
        with gzip.open(path, "rb") as file:
            for text in file:
                entry = json.loads(text)
                lines.append(RolloutLine(**{**entry, "statistics": tuple(entry["statistics"])}))
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError, KeyError, TypeError) as error:
        return lines, f"{type(error).__name__}: {error}"
    return lines, ""
