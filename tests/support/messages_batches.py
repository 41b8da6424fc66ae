"""Message batches of the stub: created, polled, ended or cancelled, and their results. It knows no HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.messages_rules import RefusedError

Json = dict[str, Any]
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CREATED, EXPIRES, ENDED = "2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", "2026-11-22T10:01:00Z"
# params -> ("", message) or (problem, {})
Answer = Callable[[Json], tuple[str, Json]]


@dataclass
class Batch:
    """One batch: what was asked, and how far it is."""

    id: str
    requests: list[Json]
    status: str = "in_progress"
    polls: int = 0
    cancelled: bool = False
    results: list[Json] = field(default_factory=list)


@dataclass
class Batches:
    """All batches; one ends at its `polls_until_ended`-th retrieval.

    `faults` ("expired", "errored") are used up one a request, the last request of a batch first.
    """

    polls_until_ended: int = 2
    faults: list[str] = field(default_factory=list)
    held: dict[str, Batch] = field(default_factory=dict)
    made: int = 0

    def create(self, body: Any) -> Batch:
        """Take a new batch; RefusedError when its shape is wrong (its params are only looked at when it runs)."""
        if not isinstance(body, dict) or set(body) != {"requests"}:
            raise RefusedError("requests: Field required, and nothing else")
        requests = body["requests"]
        if not isinstance(requests, list) or not requests:
            raise RefusedError("requests: at least one is required")
        seen: set[str] = set()
        for index, one in enumerate(requests):
            if not isinstance(one, dict) or set(one) != {"custom_id", "params"} or not isinstance(one["params"], dict):
                raise RefusedError(f"requests.{index}: custom_id and params are required, and nothing else")
            name = one["custom_id"]
            if not isinstance(name, str) or not _CUSTOM_ID.fullmatch(name):
                raise RefusedError(f"requests.{index}.custom_id: pattern [a-zA-Z0-9_-]{{1,64}}")
            if name in seen:
                raise RefusedError(f"requests.{index}.custom_id: {name} is used twice")
            if one["params"].get("stream"):
                raise RefusedError(f"requests.{index}.params.stream: not allowed in a batch")
            seen.add(name)
        self.made += 1
        batch = Batch(f"msgbatch_{self.made:04d}", requests)
        self.held[batch.id] = batch
        return batch

    def poll(self, batch: Batch, answer: Answer) -> None:
        """Count a retrieval; the batch ends when its time has come."""
        batch.polls += 1
        if batch.status == "ended" or (batch.polls < self.polls_until_ended and batch.status != "canceling"):
            return
        batch.status = "ended"
        # The API promises no order.
        for one in reversed(batch.requests):
            fault = self.faults.pop(0) if self.faults else ""
            result = _fail(fault) if fault else _result(batch, one["params"], answer)
            batch.results.append({"custom_id": one["custom_id"], "result": result})

    def cancel(self, batch: Batch) -> None:
        """Ask for its end; one that has ended stays as it is."""
        if batch.status == "in_progress":
            batch.status, batch.cancelled = "canceling", True

    def delete(self, batch: Batch) -> Json:
        """Forget an ended batch; RefusedError while it runs."""
        if batch.status != "ended":
            raise RefusedError("a batch that runs can't be deleted; cancel it first")
        del self.held[batch.id]
        return {"id": batch.id, "type": "message_batch_deleted"}


def show_batch(batch: Batch, host: str) -> Json:
    """Return a batch as the API shows it; `results_url` is absolute on the host that was asked."""
    ended = batch.status == "ended"
    kinds = [row["result"]["type"] for row in batch.results]
    counts = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.status,
        "request_counts": {"processing": 0 if ended else len(batch.requests), **counts},
        "created_at": CREATED,
        "expires_at": EXPIRES,
        "ended_at": ENDED if ended else None,
        "cancel_initiated_at": CREATED if batch.cancelled else None,
        "archived_at": None,
        "results_url": f"http://{host}/v1/messages/batches/{batch.id}/results" if ended else None,
    }


def write_results(batch: Batch) -> bytes:
    """Return the results as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in batch.results).encode()


def _fail(fault: str) -> Json:
    if fault == "expired":
        return {"type": "expired"}
    error = {"type": "error", "error": {"type": "api_error", "message": "told to fail"}, "request_id": None}
    return {"type": "errored", "error": error}


def _result(batch: Batch, params: Json, answer: Answer) -> Json:
    if batch.cancelled:
        return {"type": "canceled"}
    problem, message = answer(params)
    if problem:
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": problem}, "request_id": None}
        return {"type": "errored", "error": error}
    return {"type": "succeeded", "message": message}
