"""The options of `shammah teach`, and nothing else: what does the work is imported when it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from shammah_gateway.cli.console import named_errors
from shammah_gateway.teach.settings import MODEL


def add_command(app: typer.Typer, data_dir: Callable[[], Path]) -> None:
    """Add the command `teach` to the command line; `data_dir` is asked when it runs."""

    @app.command(name="teach")
    @named_errors
    def command(  # noqa: PLR0913 - typer makes an option of each parameter
        goal: Annotated[str, typer.Option(help="local_share=X or accuracy=X [local_share=0.9]")] = "",
        budget_usd: Annotated[
            str, typer.Option(help="most USD for teacher, judge and planner; no limit if not given")
        ] = "",
        rounds: Annotated[int | None, typer.Option(help="most rounds of training [5]")] = None,
        categories: Annotated[str, typer.Option(help="only these, separated by commas; all if not given")] = "",
        planner: Annotated[str, typer.Option(help="rules or claude [rules with a recorded teacher]")] = "",
        model: Annotated[str, typer.Option(help=f"model of the planner claude [{MODEL}]")] = "",
        examples: Annotated[int | None, typer.Option(help="examples a round [50 for each category taught]")] = None,
        probe: Annotated[list[Path] | None, typer.Option(help="workload file whose queries are looked at")] = None,
        resume: Annotated[str, typer.Option(help="id of a session to go on with, or: last")] = "",
        key_file: Annotated[Path | None, typer.Option(help="key of the Claude API; else ANTHROPIC_API_KEY")] = None,
        base_url: Annotated[str, typer.Option(help="another address of the Claude API")] = "",
        list_: Annotated[bool, typer.Option("--list", help="show the sessions")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
    ) -> None:
        """Teach the student with the five tools until a goal is reached; stops and resumes without losing a step."""
        # Here: no other command needs it, and a client of `shammah mcp` waits for the start.
        from shammah_gateway.cli.teach import TeachOptions, print_sessions, read_key, run_teaching
        from shammah_gateway.teach.run import Claude

        if list_:
            print_sessions(data_dir() / "teach")
            return
        options = TeachOptions(
            goal=goal,
            budget_usd=budget_usd,
            rounds=rounds,
            categories=categories,
            planner=planner,
            model=model,
            examples=examples,
            probes=tuple(probe or ()),
            resume=resume,
        )
        claude = Claude(key=read_key(key_file), base_url=base_url or None)
        raise typer.Exit(run_teaching(data_dir(), options, claude=claude, as_json=as_json))
