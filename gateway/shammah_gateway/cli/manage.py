"""`train`, `releases`, `promote`, `rollback`, `pin` and `tool`: steer the running system.

Each is one or two calls to the gateway and a printed answer.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from rich.table import Table
from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import MAX_QUERY_CHARS

from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.console import as_dict, err, out, percent
from shammah_gateway.job_record import name_failure
from shammah_gateway.wire import REQUEST_ID_KEY

JOB_WAIT_SECONDS = 20.0
ENDED = (types_pb2.JOB_STATE_DONE, types_pb2.JOB_STATE_FAILED, types_pb2.JOB_STATE_CANCELLED)

# Tool name -> (method of the stub, request type).
TOOL_CALLS: dict[str, tuple[str, Any]] = {
    "query_local_model": ("QueryLocalModel", gateway_pb2.QueryLocalModelRequest),
    "compare_responses": ("CompareResponses", gateway_pb2.CompareResponsesRequest),
    "generate_training_data": ("GenerateTrainingData", gateway_pb2.GenerateTrainingDataRequest),
    "analyze_model": ("AnalyzeModel", gateway_pb2.AnalyzeModelRequest),
    "train": ("Train", gateway_pb2.GatewayServiceTrainRequest),
}


async def call_tool(
    client: GatewayClient, name: str, arguments: dict[str, Any], *, wait: bool, request_id: str = ""
) -> dict[str, Any]:
    """Call one of the five tools; with `wait`, follow its job to the end.

    The same `request_id` with the same arguments finds the same job again, also after the gateway was started again.

    Raises:
        InvalidInputError: no such tool, or an argument that the tool does not have.
        ShammahError: the named error of the gateway, or of the job when it failed.
    """
    if name not in TOOL_CALLS:
        raise InvalidInputError(f"no tool {name!r}; there are {', '.join(TOOL_CALLS)}")
    method, kind = TOOL_CALLS[name]
    if arguments.get("examples") == []:
        # On the wire an empty list is none at all: the teacher would be asked, and paid.
        raise InvalidInputError("examples is an empty list; give 1 to 256 examples, or leave it out")
    if name == "query_local_model" and arguments.get("query") == "":
        raise InvalidInputError(f"query is empty; allowed: 1 to {MAX_QUERY_CHARS} characters")
    try:
        request = ParseDict(arguments, kind())
    except ParseError as error:
        allowed = ", ".join(field.name for field in kind.DESCRIPTOR.fields)
        raise InvalidInputError(f"{name}: {error}; allowed arguments: {allowed}") from error
    metadata = {REQUEST_ID_KEY: request_id} if request_id else None
    answer = await client.call(getattr(client.stub, method), request, timeout=600, metadata=metadata)
    has_job = "job" in answer.DESCRIPTOR.fields_by_name and answer.HasField("job")
    while wait and has_job and answer.job.state not in ENDED:
        await follow_job(client, answer.job.id)
        answer = await client.call(getattr(client.stub, method), kind(job=answer.job.id), timeout=60)
    if has_job and answer.job.state == types_pb2.JOB_STATE_FAILED:
        raise name_failure(answer.job.error_code, answer.job.error_message or f"job {answer.job.id} failed")
    return as_dict(answer)


async def follow_job(client: GatewayClient, job_id: str) -> types_pb2.Job:
    """Wait for the end of a job, showing its stage on standard error."""
    stage = ""
    while True:
        request = gateway_pb2.GetJobRequest(id=job_id, wait_seconds=JOB_WAIT_SECONDS if stage else 1.0)
        job = (await client.call(client.stub.GetJob, request, timeout=60)).job
        assert isinstance(job, types_pb2.Job)
        if job.stage != stage:
            stage = job.stage
            err.print(f"[dim]{percent(job.progress)} {stage}[/dim]")
        if job.state in ENDED:
            return job


def read_arguments(text: str) -> dict[str, Any]:
    """Read tool arguments: JSON text, `@FILE`, or nothing.

    Raises:
        InvalidInputError: not a JSON object.
    """
    if not text:
        return {}
    try:
        raw = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"--json wants a JSON object or @FILE: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidInputError("--json wants a JSON object")
    return raw


def print_releases(releases: list[gateway_pb2.ReleaseInfo]) -> None:
    """Print releases, newest first."""
    table = Table("release", "made", "state", "verdict", "pinned", "certified", "accuracy")
    for release in releases:
        certified = [row.category for row in release.categories if row.certified]
        accuracy = ", ".join(f"{row.category} {percent(row.accuracy)}" for row in release.categories)
        made = datetime.fromtimestamp(release.created_at).isoformat(sep=" ", timespec="seconds")
        pinned = "yes" if release.pinned else ""
        table.add_row(
            release.id, made, release.state, release.verdict, pinned, ", ".join(certified) or "-", accuracy or "-"
        )
    out.print(table)


async def list_releases(client: GatewayClient) -> list[gateway_pb2.ReleaseInfo]:
    """Return the releases of the store, newest first."""
    answer = await client.call(client.stub.ListReleases, gateway_pb2.ListReleasesRequest(), timeout=30)
    return list(answer.releases)
