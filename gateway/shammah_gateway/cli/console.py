"""What the command line prints with, and how an error ends it.

Standard output carries results, standard error progress and errors. Exit codes: 1 a named error, 2 wrong usage.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from shammah_chassis.errors import ShammahError

P = ParamSpec("P")
R = TypeVar("R")

_ENUM = re.compile(r"(?:JOB_STATE|RISK_LEVEL)_([A-Z]+)")
# A pipe has no width: tables are then laid out for a wide page instead of 80 columns.
_WIDTH = None if sys.stdout.isatty() else 140
# What others wrote is printed as it is: no `:name:` in it is a picture.
out = Console(highlight=False, emoji=False, soft_wrap=True, width=_WIDTH)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def named_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a named error into one line on standard error and exit code 1."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ShammahError as error:
            err.print(f"[red]{error.code}[/red]: ", end="")
            err.print(error.message, markup=False)
            raise typer.Exit(1) from error

    return inner


def print_answer(text: str) -> None:
    """Print an answer to standard output as it is: rich would make spaces of tabs and leave carriage returns out."""
    out.file.write(f"{text}\n")
    out.file.flush()


def as_dict(message: Message) -> dict[str, object]:
    """Return a protobuf message as plain values with the field names of the proto, unset fields included.

    Enums are the words of the tools' schemas ("done", "medium"), as every other face says them.
    """
    values = MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        use_integers_for_enums=False,
    )
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, str) and (found := _ENUM.fullmatch(value)):
        return found[1].lower()
    return value


def percent(value: float) -> str:
    """Return a share as a percentage without decimals, e.g. `93 %`."""
    return f"{100 * value:.0f} %"


def missing(rows: int) -> str:
    """Say how many exam rows are missing; -1 means that more rows alone would not help."""
    return "more rows alone would not help" if rows < 0 else f"{rows} rows missing"
