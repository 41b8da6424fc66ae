"""Long work as jobs: started once, asked after by id, finished ones kept on disk.

A job belongs to the caller who started it. It does not know what the work is: a coroutine that reports its progress.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shammah_chassis.errors import NotFoundError, OverloadedError, ShammahError
from shammah_chassis.ulid import is_ulid, new_ulid

from shammah_gateway.changes import Changes
from shammah_gateway.tasks import stop_tasks

State = Literal["queued", "running", "done", "failed", "cancelled"]
MAX_WAIT_SECONDS = 25.0
MAX_RUNNING = 16
MAX_KEPT = 1000
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class JobRecord:
    """State of one job; times are Unix seconds, 0 when not yet; `result` is the tool's result once done."""

    id: str
    kind: str
    owner: str
    state: State = "queued"
    progress: float = 0.0
    stage: str = ""
    error_code: str = ""
    error_message: str = ""
    result: dict[str, Any] | None = None
    created_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0


class Progress:
    """What running work reports to."""

    def __init__(self, record: JobRecord, changed: Changes) -> None:
        self._record = record
        self._changed = changed

    def report(self, share: float, stage: str, partial: dict[str, Any] | None = None) -> None:
        """Say how much is done (0 to 1), what is going on, and what is known already."""
        self._record.progress = min(1.0, max(0.0, share))
        self._record.stage = stage
        if partial is not None:
            self._record.result = partial
        self._changed.notify()


Work = Callable[[Progress], Awaitable[dict[str, Any]]]


class JobBook:
    """All jobs of this gateway; `folder` keeps the finished ones as JSON, newest thousand."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._records = {record.id: record for record in map(_read, sorted(folder.glob("*.json"))) if record}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, ShammahError] = {}
        self._changed = Changes()
        for record in self._records.values():
            if record.state not in ENDED:
                # Its work died with the process that ran it.
                record.state, record.ended_at = "failed", time.time()
                record.error_code, record.error_message = "unavailable", "the gateway was started again meanwhile"
                self._save(record)

    def start(self, kind: str, owner: str, work: Work) -> JobRecord:
        """Start work as a job of `owner`; raises OverloadedError when 16 run already."""
        if len(self._tasks) >= MAX_RUNNING:
            raise OverloadedError(f"{MAX_RUNNING} jobs run already", retry_after_seconds=5.0)
        record = JobRecord(id=new_ulid(), kind=kind, owner=owner, created_at=time.time())
        self._records[record.id] = record
        self._save(record)
        task = asyncio.create_task(self._run(record, work), name=f"{kind} {record.id}")
        self._tasks[record.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(record.id, None))
        return record

    def get(self, job: str, owner: str) -> JobRecord:
        """Return a job; NotFoundError for an unknown one and for somebody else's alike."""
        record = self._records.get(job)
        if record is None or record.owner != owner:
            raise NotFoundError(f"there is no job {job!r} of yours")
        return record

    def raise_failure(self, record: JobRecord) -> None:
        """Raise the named error that a job of this process failed with, if it failed with one."""
        if error := self._failures.get(record.id):
            raise error

    async def wait(self, record: JobRecord, seconds: float = MAX_WAIT_SECONDS) -> JobRecord:
        """Return the job when it has ended, at the latest after `seconds` (at most 25)."""
        await self._changed.wait_until(lambda: record.state in ENDED, min(seconds, MAX_WAIT_SECONDS))
        return record

    async def close(self) -> None:
        """Stop all work; the jobs are recorded as cancelled."""
        await stop_tasks(list(self._tasks.values()))

    async def _run(self, record: JobRecord, work: Work) -> None:
        record.state, record.started_at = "running", time.time()
        self._changed.notify()
        try:
            record.result = await work(Progress(record, self._changed))
            record.state, record.progress, record.stage = "done", 1.0, "done"
        except ShammahError as error:
            record.state, record.error_code, record.error_message = "failed", error.code, error.message
            self._failures[record.id] = error
        except asyncio.CancelledError:
            record.state, record.error_code, record.error_message = "cancelled", "unavailable", "the gateway stopped"
            raise
        finally:
            if record.state == "running":
                record.state, record.error_code, record.error_message = "failed", "internal", "internal error"
            record.ended_at = time.time()
            self._save(record)
            self._forget_oldest()
            self._changed.notify()

    def _save(self, record: JobRecord) -> None:
        path = self._folder / f"{record.id}.json"
        aside = path.with_suffix(".new")
        try:
            aside.write_text(json.dumps(asdict(record)), "utf-8")
            os.replace(aside, path)
        except OSError as error:
            # The job itself goes on: it is only its memory that is short now.
            _log.warning("job %s can't be kept on disk: %s", record.id, error)

    def _forget_oldest(self) -> None:
        ended = sorted(name for name, record in self._records.items() if record.state in ENDED)
        for name in ended[: max(0, len(ended) - MAX_KEPT)]:
            del self._records[name]
            self._failures.pop(name, None)
            (self._folder / f"{name}.json").unlink(missing_ok=True)


def _read(path: Path) -> JobRecord | None:
    try:
        record = JobRecord(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        _log.warning("%s is no job record", path)
        return None
    return record if is_ulid(record.id) else None
