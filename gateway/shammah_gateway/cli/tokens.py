"""`shammah tokens`: who may do what. It changes the table of a data folder; what runs there follows within seconds."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from rich.table import Table
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.token_book import CLAUDE, Changed, TokenBook
from shammah_chassis.tokens import Entry

from shammah_gateway.cli.console import err, out


def open_book(data_dir: Path) -> TokenBook:
    """Return the table of a data folder."""
    return TokenBook(data_dir / "tokens.json")


def split_scopes(texts: list[str]) -> list[str]:
    """Read scopes that are given apart or with commas between."""
    return [scope.strip() for text in texts for scope in text.split(",") if scope.strip()]


def add(data_dir: Path, name: str, scopes: list[str]) -> None:
    """Make a token and print it, once; raises as `TokenBook.add`."""
    _tell(open_book(data_dir), open_book(data_dir).add(name, split_scopes(scopes)))


def grant(data_dir: Path, name: str, scopes: list[str]) -> None:
    """Give a token more scopes; raises as `TokenBook.grant`."""
    _tell(open_book(data_dir), open_book(data_dir).grant(name, split_scopes(scopes)))


def revoke(data_dir: Path, name: str, scopes: list[str], *, everything: bool) -> None:
    """Take scopes from a token; raises as `TokenBook.revoke`, and InvalidInputError where none is named."""
    wanted = split_scopes(scopes)
    if bool(wanted) == everything:
        raise InvalidInputError("name the scopes to take away, or --all of them")
    _tell(open_book(data_dir), open_book(data_dir).revoke(name, wanted))


def remove(data_dir: Path, name: str) -> None:
    """Delete a token; raises as `TokenBook.remove`."""
    open_book(data_dir).remove(name)
    err.print(f"{name} is removed", markup=False)


def show(data_dir: Path, *, as_json: bool) -> None:
    """Print names and scopes; a token itself is nowhere to be printed from."""
    entries = sorted(open_book(data_dir).list(), key=lambda entry: entry.name)
    if as_json:
        rows = [
            {
                "name": entry.name,
                "scopes": sorted(entry.scopes),
                "changed_at": entry.changed_at,
                "changed_by": entry.changed_by,
            }
            for entry in entries
        ]
        out.print_json(json.dumps(rows))
        return
    table = Table("name", "may", "changed", "by")
    for entry in entries:
        table.add_row(entry.name, _list_scopes(entry), _write_time(entry.changed_at), entry.changed_by)
    out.print(table)


def _tell(book: TokenBook, changed: Changed) -> None:
    entry = changed.entry
    err.print(f"{entry.name} may: {_list_scopes(entry)}", markup=False)
    if not changed.token:
        return
    if entry.name == CLAUDE:
        err.print(f"its token is in {book.claude_file} too, where shammah mcp and shammah teach find it", markup=False)
    else:
        err.print("its token, shown this once:", markup=False)
    out.print(changed.token, markup=False, highlight=False, soft_wrap=True)


def _list_scopes(entry: Entry) -> str:
    return ", ".join(sorted(entry.scopes)) or "nothing"


def _write_time(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(sep=" ", timespec="seconds") if at else ""
