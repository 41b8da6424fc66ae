"""What status says of the process and of its last round: plain readings."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.errors import ShammahError

from shammah_trainer.jobs import TrainJob
from shammah_trainer.ledger import Ledger
from shammah_trainer.problems import StoppedError
from shammah_trainer.round_log import INTERRUPTED, Parked, RoundEntry, last_rounds


@dataclass(frozen=True, slots=True)
class TrainerStatus:
    """Queue, ledger and last round. `categories`: rows by part and `new_train`, by category. Bytes are resident now.

    `parked` are not in the queue any more: rounds failed on them.
    """

    categories: dict[str, dict[str, int]]
    queue_size: int
    parked: Parked
    batch_size: int
    ledger_sequence: int
    acked_sequence: int
    dead_letters: int
    last_round: TrainJob | None
    resident_bytes: int
    device: str


def measure_resident_bytes() -> int:
    """Return the resident size of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def encode_result(job: TrainJob) -> str:
    """Return the result of a job as JSON; "" while there is none."""
    return json.dumps(job.result, sort_keys=True) if job.result else ""


def load_last_round(ledger: Ledger) -> TrainJob | None:
    """Return the newest finished round of an earlier process as a job; of a failed one with what ended it."""
    for entry in last_rounds(ledger, 1):
        job = TrainJob(entry.id, created_at=entry.started, started_at=entry.started)
        if entry.state in ("published", "done"):
            job.finish(entry.result)
        else:
            code, message = _read_failure(entry)
            job.fail(code, message, cancelled=code == StoppedError.code)
        job.ended_at = entry.ended
        return job
    return None


def _read_failure(entry: RoundEntry) -> tuple[str, str]:
    """Return code and message of a failed round; rounds of older versions have no code."""
    text = str(entry.result.get("error", INTERRUPTED))
    code = str(entry.result.get("code", "")) or (INTERRUPTED if text.startswith(INTERRUPTED) else ShammahError.code)
    if code in (INTERRUPTED, ShammahError.code):
        return code, text
    # Of a named error its callers got the message alone.
    return code, text.partition(": ")[2]
