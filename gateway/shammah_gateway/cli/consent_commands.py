"""`shammah tokens` and `shammah audit`: their arguments, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from shammah_chassis.errors import InvalidInputError

from shammah_gateway.cli import audit as auditing
from shammah_gateway.cli import tokens as granting
from shammah_gateway.cli.console import named_errors

_WORDS = "ask, compare, generate, analyze, train, audit, admin; several with commas"
Name = Annotated[str, typer.Argument(help="name of a token, as 'claude'")]
Scopes = Annotated[list[str], typer.Argument(help=_WORDS)]
ScopesOption = Annotated[list[str], typer.Option(help=_WORDS)]
NoScopes = Annotated[list[str] | None, typer.Argument(help=_WORDS)]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def add_commands(app: typer.Typer, data_dir: Callable[[], Path]) -> None:
    """Add the commands to an application; `data_dir` is asked when one runs."""
    tokens = typer.Typer(no_args_is_help=True, help="Who may do what; a change counts at once.")
    app.add_typer(tokens, name="tokens")
    _add_tokens(tokens, data_dir)
    _add_audit(app, data_dir)


def _add_tokens(tokens: typer.Typer, data_dir: Callable[[], Path]) -> None:
    @tokens.command()
    @named_errors
    def add(name: Name, scopes: ScopesOption) -> None:
        """Make a token; it is printed once."""
        granting.add(data_dir(), name, scopes)

    @tokens.command()
    @named_errors
    def grant(name: Name, scopes: Scopes) -> None:
        """Give a token more scopes; the first grant to "claude" makes its token."""
        granting.grant(data_dir(), name, scopes)

    @tokens.command()
    @named_errors
    def revoke(
        name: Name,
        scopes: NoScopes = None,
        all_: Annotated[bool, typer.Option("--all", help="take all of them")] = False,
    ) -> None:
        """Take scopes from a token."""
        granting.revoke(data_dir(), name, scopes or [], everything=all_)

    @tokens.command(name="list")
    @named_errors
    def list_all(as_json: AsJson = False) -> None:
        """List the tokens and what they may; never the tokens themselves."""
        granting.show(data_dir(), as_json=as_json)

    @tokens.command()
    @named_errors
    def remove(name: Name) -> None:
        """Delete a token: who holds it may do nothing any more."""
        granting.remove(data_dir(), name)


def _add_audit(app: typer.Typer, data_dir: Callable[[], Path]) -> None:
    @app.command()
    @named_errors
    def audit(
        verify: Annotated[bool, typer.Option("--verify", help="check the chain of every line")] = False,
        tail: Annotated[int, typer.Option(min=1, max=100_000, help="show so many of the last lines")] = 20,
        expect: Annotated[str, typer.Option(help="with --verify: a head LINE:HASH that must be in the log")] = "",
        as_json: AsJson = False,
    ) -> None:
        """Show who did what, what left this machine and what it changed; or check that nobody changed the log."""
        folder = data_dir() / "gateway"
        if expect and not verify:
            raise InvalidInputError("--expect goes with --verify")
        if not verify:
            auditing.show(folder, count=tail, as_json=as_json)
        elif not auditing.check(folder, expected=expect, as_json=as_json):
            raise typer.Exit(1)
