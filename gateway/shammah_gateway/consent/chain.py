"""The lines of the audit log: one JSON object each, with a number and the SHA-256 of the line before.

Who changes, takes out or adds a line breaks the chain at that place. It knows the form of lines and files, not what is
noted. A change of the very last lines shows only against a head (number and hash) that was kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "audit.jsonl"
_ROTATED = "audit-*.jsonl"
# The hash before the first line.
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be noted: `at` in Unix seconds; `caller` "" is the gateway itself."""

    at: float
    event: str
    caller: str
    what: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the number of its last line (0: none) and the hash of it."""

    number: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the chain found: lines read, the number of the first, the head, and the first fault ("" none)."""

    lines: int
    first: int
    head: Head
    problem: str = ""


def write_line(head: Head, note: Note) -> tuple[bytes, Head]:
    """Return the next line, with its line end, and the head after it."""
    number = head.number + 1
    row = {
        "seq": number,
        "at": round(note.at, 3),
        "event": note.event,
        "caller": note.caller,
        "what": dict(note.what),
        "prev": head.hash,
    }
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
    return text + b"\n", Head(number, hash_line(text))


def hash_line(line: bytes) -> str:
    """Return the SHA-256 (hex) of a line without its line end."""
    return hashlib.sha256(line).hexdigest()


def rotated_name(first: int) -> str:
    """Return the name of a full file by the number of its first line; names sort as the lines do."""
    return f"audit-{first:012d}.jsonl"


def list_files(folder: Path) -> list[Path]:
    """Return the files of the log, oldest first."""
    current = folder / FILE_NAME
    return [*sorted(folder.glob(_ROTATED)), *([current] if current.is_file() else [])]


def read_tail(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the last `count` lines, oldest first; what is no line of the log is left out. Blocking."""
    last: deque[dict[str, Any]] = deque(maxlen=count)
    for line in _lines(list_files(folder)):
        row = _parse(line)
        if row is not None:
            last.append(row)
    return list(last)


def verify(folder: Path, *, expected: Head | None = None) -> Verdict:
    """Check every line of the log against the one before; with `expected` also that this head is among them. Blocking.

    The chain may begin after line 1, where old files were taken away: `first` says where.
    """
    head, count, first, met = Head(), 0, 0, expected is None
    for line in _lines(list_files(folder)):
        row = _parse(line)
        if row is None:
            return Verdict(count, first, head, f"after line {head.number}: not a line of the log")
        number, before = row["seq"], row["prev"]
        if count == 0:
            first, head = number, Head(number - 1, GENESIS if number == 1 else before)
        if number != head.number + 1:
            return Verdict(count, first, head, f"after line {head.number} comes line {number}")
        if before != head.hash:
            return Verdict(
                count, first, head, f"line {head.number or number} was changed: its hash is not line {number}'s"
            )
        head, count = Head(number, hash_line(line)), count + 1
        met = met or head == expected
    if not met and expected is not None:
        return Verdict(count, first, head, f"line {expected.number} with the hash that was kept is not in the log")
    return Verdict(count, first, head)


def read_head(lines: Sequence[bytes]) -> Head | None:
    """Return the head that the last of some lines makes; None when it is no line of the log."""
    row = _parse(lines[-1])
    return Head(row["seq"], hash_line(lines[-1])) if row is not None else None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("seq"), int) and isinstance(row.get("prev"), str)
    return row if whole else None


def _lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as source:
            for line in source:
                yield line.rstrip(b"\n")
