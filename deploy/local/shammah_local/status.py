"""What runs on a data folder, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

from shammah_local.layout import Layout
from shammah_local.lock import is_locked, read_holder


def read_status(layout: Layout) -> dict[str, Any] | None:
    """Return what the supervisor wrote last; None when nothing runs there or it has written nothing yet."""
    if not is_locked(layout.lock_file):
        return None
    try:
        state = json.loads(layout.status_file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    # An older file may lie there while a new supervisor begins.
    return state if isinstance(state, dict) and state.get("pid") == read_holder(layout.lock_file) else None


def format_status(state: dict[str, Any]) -> str:
    """Return the status as lines of text: one for the whole and one a part."""
    http = f"  HTTP {state['http']}" if state.get("http") else ""
    lines = [f"{state['state']}  process {state['pid']}  gateway {state['gateway'] or '-'}{http}"]
    for name, part in state["parts"].items():
        ports = " ".join(f"{key}={value}" for key, value in part.items() if key.endswith("port"))
        restarts = f"  restarts {part['restarts']} (last exit {part['last_exit']})" if part["restarts"] else ""
        problem = f"  {part['problem']}" if part.get("problem") else ""
        lines.append(f"  {name:<10} {part['state']:<10} process {part['pid'] or '-'}  {ports}{restarts}{problem}")
    return "\n".join(lines)
