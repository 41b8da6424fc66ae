"""`teach`: run, resume or list teaching sessions, and print their reports. Its options are in `teach_command`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from shammah_chassis.errors import ArtifactError, InvalidInputError, UnavailableError

from shammah_gateway.cli.console import err, out, percent
from shammah_gateway.cli.learn import read_rows
from shammah_gateway.cli.paths import Connection, find_connection
from shammah_gateway.money.caps import show_usd
from shammah_gateway.teach.display import Display
from shammah_gateway.teach.ending import BAD
from shammah_gateway.teach.journal import list_sessions, read_journal
from shammah_gateway.teach.report import current_settings, describe_report
from shammah_gateway.teach.run import Claude, Place, choose_planner, resume, teach
from shammah_gateway.teach.settings import Probe, TeachSettings, parse_budget, parse_goal

TOKEN_NAME = "claude"
SCOPES = "ask,compare,generate,analyze,train"
Report = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachOptions:
    """The arguments of the command, as given; "" and None are not given."""

    goal: str = ""
    budget_usd: str = ""
    rounds: int | None = None
    categories: str = ""
    planner: str = ""
    model: str = ""
    examples: int | None = None
    probes: tuple[Path, ...] = ()
    resume: str = ""

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, checked."""
        return {
            "goal": parse_goal(self.goal) if self.goal else None,
            "budget_usd": parse_budget(self.budget_usd) if self.budget_usd else None,
            "rounds": self.rounds,
            "categories": tuple(name.strip() for name in self.categories.split(",")) if self.categories else None,
            "planner": self.planner or None,
            "model": self.model or None,
            "examples": self.examples,
            "probes": tuple(_read_probes(self.probes)) if self.probes else None,
        }


def find_teacher_connection(data_dir: Path) -> Connection:
    """Return address and token for teaching: `$SHAMMAH_TOKEN`, else the token that was granted to Claude.

    Raises:
        UnavailableError: nothing was granted, or nothing runs on the data folder.
    """
    named = os.environ.get("SHAMMAH_TOKEN", "")
    if not named:
        try:
            named = (data_dir / f"{TOKEN_NAME}.token").read_text("utf-8").strip()
        except OSError as error:
            raise UnavailableError(
                f"teaching is off until you grant it: shammah --data-dir {data_dir} tokens grant {TOKEN_NAME} {SCOPES}"
            ) from error
    found = find_connection(data_dir)
    return Connection(target=found.target, token=named, http=found.http)


def make_place(data_dir: Path, *, claude: Claude) -> Place:
    """Return where sessions of a data folder run."""
    return Place(root=data_dir / "teach", find=lambda: find_teacher_connection(data_dir), claude=claude)


def run_teaching(data_dir: Path, options: TeachOptions, *, claude: Claude, as_json: bool) -> int:
    """Begin or resume a session, show it, print its report; returns the exit code."""
    place = make_place(data_dir, claude=claude)
    # Refused here, before anything is waited for.
    place.find()
    given = options.given()
    shown: list[Display] = []

    def watch(settings: TeachSettings) -> Display:
        shown.append(Display(err, settings))
        return shown[0]

    async def work() -> Report:
        if options.resume:
            return await resume(place, options.resume, watch, **given)
        values = {name: value for name, value in given.items() if value is not None}
        values.setdefault("planner", await choose_planner(place))
        return await teach(place, TeachSettings(**values), watch)

    report = _run(work, shown, data_dir)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    else:
        out.print(describe_report({**report, "steps": []}).rpartition("\n## Steps")[0], markup=False)
        out.print(f"report: {place.root / report['session'] / 'report.md'}", markup=False)
    if report["state"] not in ("goal",):
        err.print(f"resume with: shammah --data-dir {data_dir} teach --resume {report['session']}", markup=False)
    return 1 if report["state"] in BAD else 0


def _run(work: Callable[[], Coroutine[Any, Any, Report]], shown: list[Display], data_dir: Path) -> Report:
    try:
        return asyncio.run(work())
    except KeyboardInterrupt:
        if not shown:
            err.print("stopped before a session was begun")
        else:
            again = f"shammah --data-dir {data_dir} teach --resume last"
            err.print(f"stopped; what runs in the gateway goes on. Resume with: {again}", markup=False)
        raise typer.Exit(130) from None
    finally:
        for display in shown:
            display.stop()


def print_sessions(root: Path) -> None:
    """Print the sessions of a data folder, oldest first."""
    table = Table("session", "begun", "planner", "goal", "steps", "state", "before", "after", "USD")
    for folder in list_sessions(root):
        try:
            entries = read_journal(folder)
        except ArtifactError as error:
            # One session that can't be read hides no other.
            err.print(f"{error.code}: {error.message}", markup=False)
            continue
        if not entries:
            continue
        settings = current_settings(entries)
        begun = datetime.fromtimestamp(entries[0]["at"]).isoformat(sep=" ", timespec="seconds")
        steps = sum(entry["kind"] == "result" for entry in entries)
        ended = entries[-1]["state"] if entries[-1]["kind"] == "end" else "open"
        table.add_row(
            folder.name, begun, settings.planner, str(settings.goal), str(steps), ended, *_read_shares(folder)
        )
    out.print(table)


def _read_shares(folder: Path) -> tuple[str, str, str]:
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
    except (OSError, ValueError):
        return "-", "-", "-"
    before = "-" if report["before"] is None else percent(report["before"])
    return before, percent(report["after"]), show_usd(Decimal(report["cost_usd"]))


def _read_probes(files: tuple[Path, ...]) -> list[Probe]:
    rows, malformed = read_rows(files)
    for line in malformed:
        err.print(f"skipped {line}", markup=False)
    return [Probe(row.example.category, row.example.query_text, row.example.response) for row in rows]


def read_key(file: Path | None) -> str | None:
    """Return the key in a file; None without one. InvalidInputError when it can't be read or is empty."""
    if file is None:
        return None
    try:
        key = file.read_text("utf-8").strip()
    except OSError as error:
        raise InvalidInputError(f"the key file {file} can't be read: {error.strerror}") from error
    if not key:
        raise InvalidInputError(f"the key file {file} is empty")
    return key
