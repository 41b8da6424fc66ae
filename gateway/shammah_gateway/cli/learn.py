"""`learn FILE...`: recorded examples through the real stream.

Reads workload files (JSON lines, plain or .gz), keeps what is well formed, names what is not, and hands the rest to
the gateway in batches. Which part an example falls into is decided at ingestion, not here; `--exam` only marks a file
as the user's own exam.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from shammah.v1 import gateway_pb2
from shammah_chassis.examples import Example
from shammah_chassis.workload import WorkloadRow, read_workload

from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.console import err

BATCH_ROWS = 256


@dataclass(slots=True)
class LearnReport:
    """What became of the rows: queued, rejected by reason, malformed lines, and whether any went to the spool."""

    queued: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    spooled: bool = False


def read_rows(files: Iterable[Path], *, limit: int = 0) -> tuple[list[WorkloadRow], list[str]]:
    """Read the rows of all files (at most `limit` of each; 0 is all) and the malformed lines.

    Raises:
        NotFoundError: a file is missing.
    """
    rows: list[WorkloadRow] = []
    malformed: list[str] = []
    for path in files:
        read = read_workload(path)
        rows += read.rows[:limit] if limit else read.rows
        malformed += read.errors
    return rows, malformed


def _batches(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while batch := list(islice(examples, BATCH_ROWS)):
        yield batch


async def learn(client: GatewayClient, rows: Sequence[WorkloadRow], *, exam: bool) -> LearnReport:
    """Send the rows; raises the named error of the gateway when a whole batch is refused."""
    report = LearnReport()
    marked = (replace(row.example, part_hint="exam") if exam else row.example for row in rows)
    for batch in _batches(marked):
        request = gateway_pb2.SubmitExamplesRequest(example_json=[json.dumps(example.to_json()) for example in batch])
        answer = await client.call(client.stub.SubmitExamples, request, timeout=60)
        report.queued += answer.queued
        report.spooled |= answer.spooled
        for entry in answer.rejected:
            report.rejected[entry.reason] = report.rejected.get(entry.reason, 0) + entry.count
    return report


def print_report(report: LearnReport) -> None:
    """Print malformed lines and rejects to standard error."""
    for line in report.malformed[:20]:
        err.print(f"skipped {line}", markup=False)
    if len(report.malformed) > 20:
        err.print(f"... and {len(report.malformed) - 20} more malformed lines")
    for reason, count in sorted(report.rejected.items()):
        err.print(f"rejected {count}: {reason}", markup=False)
    if report.spooled:
        err.print("the event bus is away: examples lie in the spool and will be sent later")
