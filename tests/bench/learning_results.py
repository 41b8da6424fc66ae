"""Adding figures to `results/learning.json`: several programs measure for it, each replaces its own ids only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from system import RESULTS, Figure, machine

NAME = "learning"


def merge_figures(
    figures: Sequence[Figure], *, command: str, where: str = "", folder: Path = RESULTS, name: str = NAME
) -> Path:
    """Write figures over those of the same id, keep the others; `where` names another machine that took part."""
    path = folder / f"{name}.json"
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {"figures": []}
    made = {figure.id: figure for figure in figures}
    entries = [entry for entry in known["figures"] if entry["id"] not in made]
    for figure in made.values():
        entries.append({key: value for key, value in asdict(figure).items() if value not in ("", None)})
    commands = dict.fromkeys([*filter(None, known.get("command", "").split("; ")), command])
    machines = dict.fromkeys([*filter(None, known.get("machine", "").split("; ")), *filter(None, [where]), machine()])
    body = {
        "command": "; ".join(commands),
        "machine": "; ".join(machines),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": sorted(entries, key=lambda entry: str(entry["id"])),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    print(f"wrote {path}")
    return path
