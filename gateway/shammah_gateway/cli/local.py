"""`up`, `down`, `status`: the parts of one machine.

The supervisor is a program of its own (`python -m shammah_local`); this file only starts it and reads what it says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rich.table import Table
from shammah.v1 import gateway_pb2
from shammah_chassis.errors import ShammahError, UnavailableError

from shammah_gateway.cli.client import GatewayClient, run
from shammah_gateway.cli.console import as_dict, err, missing, out
from shammah_gateway.cli.money import print_money
from shammah_gateway.cli.paths import find_connection


def supervisor(*arguments: str, data_dir: Path) -> list[str]:
    """Return the command line of the supervisor for a data folder."""
    return [sys.executable, "-m", "shammah_local", *arguments, "--data-dir", str(data_dir)]


def start(data_dir: Path, *, detach: bool, settings: list[str]) -> int:
    """Start every part; in the foreground this process becomes the supervisor. Returns the exit code."""
    command = supervisor("up", data_dir=data_dir)
    if detach:
        command.append("--detach")
    for setting in settings:
        command += ["--set", setting]
    if detach:
        return subprocess.run(command, check=False).returncode
    sys.stdout.flush()
    os.execv(command[0], command)


def stop(data_dir: Path) -> int:
    """Stop every part and wait for it. Returns the exit code."""
    return subprocess.run(supervisor("down", data_dir=data_dir), check=False).returncode


def show_status(data_dir: Path, *, as_json: bool) -> None:
    """Print the state of the parts and of the promise.

    Raises:
        UnavailableError: nothing runs there.
    """
    connection = find_connection(data_dir)

    async def fetch(client: GatewayClient) -> gateway_pb2.GetStatusResponse:
        answer = await client.call(client.stub.GetStatus, gateway_pb2.GetStatusRequest(), timeout=10)
        assert isinstance(answer, gateway_pb2.GetStatusResponse)
        return answer

    try:
        status = run(connection, fetch)
    except ShammahError as error:
        raise UnavailableError(f"the gateway at {connection.target} does not answer: {error.message}") from error
    if as_json:
        out.print_json(json.dumps(as_dict(status)))
        return
    http = f", HTTP at {connection.http}" if connection.http else ""
    out.print(f"gateway at {connection.target}{http}", highlight=False)
    print_status(status)


def tell_notice(row: gateway_pb2.CategoryCertificate) -> str:
    """Say how long it would take until twice the promised share of bad answers is noticed."""
    if not row.certified:
        return "-"
    if not row.seconds_to_notice:
        return f"{row.audits_to_notice} audits"
    return f"{row.audits_to_notice} audits, {days(row.seconds_to_notice)}"


def days(seconds: float) -> str:
    """Return a time in the largest unit that is full once."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_status(status: gateway_pb2.GetStatusResponse) -> None:
    """Print a status as tables."""
    promise = status.promise.removeprefix("promise ")
    out.print(f"champion {status.champion or '-'}  candidate {status.candidate or '-'}  promise: {promise}")
    # What is none of the three was a local answer with a label.
    degraded = status.queries - status.local - status.forwarded - status.failed
    out.print(
        f"queries {status.queries}: local {status.local}, forwarded {status.forwarded}, degraded {degraded}, "
        f"failed {status.failed}; "
        f"teacher calls {status.teacher_calls}; new examples {status.queue_size}; spooled {status.spooled}"
    )
    parts = Table("part", "ready", "detail")
    for part in status.parts:
        parts.add_row(part.name, "yes" if part.ready else "no", part.detail)
    out.print(parts)
    if status.categories:
        heads = ("category", "certified", "threshold", "exam rows", "accepted", "errors", "audits", "noticed in")
        categories = Table(*heads, "evidence")
        for row in status.categories:
            categories.add_row(
                row.category,
                row.state if row.certified else "no",
                f"{row.threshold:.3f}" if row.certified else "-",
                str(row.exam_rows),
                str(row.accepted),
                str(row.errors),
                f"{row.audits_bad} bad of {row.audits}" if row.certified else "-",
                tell_notice(row),
                f"{days(row.evidence_seconds)} old" if row.certified else missing(row.rows_missing),
            )
        out.print(categories)
    print_money(status.money)
    for warning in status.warnings:
        err.print(f"warning: {warning}", markup=False)
