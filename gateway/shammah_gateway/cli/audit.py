"""`shammah audit`: the audit log of a data folder, read and checked. It needs no running gateway."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

from rich.table import Table
from shammah_chassis.errors import InvalidInputError, NotFoundError

from shammah_gateway.cli.console import err, out
from shammah_gateway.consent.chain import Head, list_files, read_tail, verify

_HEAD = re.compile(r"(\d+):([0-9a-f]{64})")


def show(folder: Path, *, count: int, as_json: bool) -> None:
    """Print the last lines, oldest first; as JSON lines with `as_json`.

    Raises:
        NotFoundError: there is no log.
    """
    _check(folder)
    rows = read_tail(folder, count)
    if as_json:
        for row in rows:
            out.print(json.dumps(row, ensure_ascii=False), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table("line", "at", "who", "what", "")
    for row in rows:
        at = datetime.fromtimestamp(row.get("at", 0.0)).isoformat(sep=" ", timespec="seconds")
        what = json.dumps(row.get("what", {}), ensure_ascii=False)
        table.add_row(str(row["seq"]), at, row.get("caller") or "gateway", str(row.get("event", "")), what)
    out.print(table)


def check(folder: Path, *, expected: str, as_json: bool) -> bool:
    """Check the chain and print what was found; returns whether it is whole.

    Raises:
        NotFoundError: there is no log. InvalidInputError: `expected` is no head (LINE:HASH).
    """
    _check(folder)
    found = verify(folder, expected=read_head(expected))
    if as_json:
        told = {
            "whole": not found.problem,
            "problem": found.problem,
            "lines": found.lines,
            "first": found.first,
            "head": f"{found.head.number}:{found.head.hash}",
        }
        out.print_json(json.dumps(told))
    elif found.problem:
        err.print(f"the audit log is NOT whole: {found.problem} ({found.lines} lines before are)", markup=False)
    else:
        since = "" if found.first <= 1 else f", from line {found.first} on (older files are not here)"
        out.print(f"the audit log is whole: {found.lines} lines{since}", markup=False)
        out.print(f"head {found.head.number}:{found.head.hash}", markup=False, highlight=False, soft_wrap=True)
        out.print("keep the head elsewhere: --expect checks that the log still holds it", markup=False)
    return not found.problem


def read_head(text: str) -> Head | None:
    """Read LINE:HASH; None for nothing."""
    if not text:
        return None
    found = _HEAD.fullmatch(text)
    if found is None:
        raise InvalidInputError(f"--expect {text!r}: allowed is LINE:HASH, as --verify prints it")
    return Head(int(found[1]), found[2])


def _check(folder: Path) -> None:
    if not list_files(folder):
        raise NotFoundError(f"there is no audit log in {folder}: nothing ran there yet")
