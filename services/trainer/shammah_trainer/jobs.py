"""Jobs of the trainer: what a caller may know of a round that waits, runs or has ended. Plain values, no transport."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from shammah_chassis.errors import NotFoundError

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
LONGEST_WAIT_SECONDS = 25.0
_KEPT = 100


@dataclass(slots=True)
class TrainJob:
    """One round; `id` is the id of the release that it makes. Times are Unix seconds, 0 when not yet.

    `request_id` is the key of who asked for it; `stop` is set to end it at its next step.
    """

    id: str
    request_id: str = ""
    state: JobState = "queued"
    progress: float = 0.0
    stage: str = "queued"
    error_code: str = ""
    error_message: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)
    started_at: float = 0.0
    ended_at: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)
    stop: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def start(self) -> None:
        """Note that it runs."""
        self.state, self.stage, self.started_at = "running", "starting", time.time()

    def finish(self, result: dict[str, Any]) -> None:
        """Note that it is done."""
        self.state, self.progress, self.stage = "done", 1.0, "done"
        self.result, self.ended_at = result, time.time()
        self.ended.set()

    def fail(self, code: str, message: str, *, cancelled: bool = False) -> None:
        """Note why it ended without a release."""
        self.state = "cancelled" if cancelled else "failed"
        self.stage, self.error_code, self.error_message = "ended with an error", code, message
        self.ended_at = time.time()
        self.ended.set()


class JobBook:
    """The newest jobs by id."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, TrainJob] = OrderedDict()

    @property
    def last(self) -> TrainJob | None:
        """The newest job, or None."""
        return next(reversed(self._jobs.values()), None)

    @property
    def running(self) -> TrainJob | None:
        """The job that waits or runs, or None."""
        last = self.last
        return last if last is not None and not last.ended.is_set() else None

    def find(self, request_id: str) -> TrainJob | None:
        """Return the newest job of a request, or None (also for no request)."""
        if not request_id:
            return None
        return next((job for job in reversed(self._jobs.values()) if job.request_id == request_id), None)

    def add(self, job: TrainJob) -> None:
        """Keep a job; the oldest beyond a hundred is forgotten."""
        self._jobs[job.id] = job
        while len(self._jobs) > _KEPT:
            self._jobs.popitem(last=False)

    async def get(self, job_id: str, wait_seconds: float) -> TrainJob:
        """Return a job, waiting up to 25 s for its end.

        Raises:
            NotFoundError: nobody knows the id.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFoundError(f"no train job {job_id!r}; the newest {_KEPT} are kept")
        seconds = min(max(0.0, wait_seconds), LONGEST_WAIT_SECONDS)
        if seconds and not job.ended.is_set():
            waiting = asyncio.create_task(job.ended.wait())
            await asyncio.wait({waiting}, timeout=seconds)
            waiting.cancel()
        return job
