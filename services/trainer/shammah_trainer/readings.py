"""What status says of the process and of its last round: plain readings."""

from __future__ import annotations

import json
import os
from pathlib import Path

from shammah_trainer.jobs import TrainJob
from shammah_trainer.ledger import Ledger
from shammah_trainer.round_log import last_rounds


def measure_resident_bytes() -> int:
    """Return the resident size of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def encode_result(job: TrainJob) -> str:
    """Return the result of a job as JSON; "" while there is none."""
    return json.dumps(job.result, sort_keys=True) if job.result else ""


def load_last_round(ledger: Ledger) -> TrainJob | None:
    """Return the newest finished round of an earlier process as a job."""
    for entry in last_rounds(ledger, 1):
        job = TrainJob(entry.id, created_at=entry.started, started_at=entry.started)
        if entry.state in ("published", "done"):
            job.finish(entry.result)
        else:
            job.fail("interrupted", str(entry.result.get("error", "interrupted")))
        job.ended_at = entry.ended
        return job
    return None
