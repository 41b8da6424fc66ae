"""Render `RESULTS.md` from the JSON files of `results/`."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Write the page."""
    lines = ["# Measured results", "", "Rendered by `make results` from `results/*.json`; never edited by hand.", ""]
    for path in sorted((HERE / "results").glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        if "figures" not in result:  # a list of rows, say
            continue
        lines += [f"## {path.stem}", "", f"`{result['command']}`, {result['date']}, {result['machine']}", ""]
        lines += ["| figure | value | unit | peer | note |", "|---|---|---|---|---|"]
        for figure in result["figures"]:
            peer = f"{figure['peer']}: {figure.get('peer_value', '')}" if figure.get("peer") else ""
            note = figure.get("note", "")
            lines.append(f"| `{figure['id']}` | {figure['value']:.4g} | {figure['unit']} | {peer} | {note} |")
        lines.append("")
    (HERE / "RESULTS.md").write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
