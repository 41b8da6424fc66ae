"""Long work as jobs: started once, asked after by id, stopped on demand, gone on with after a restart.

A job belongs to the caller who started it. It does not know what the work is: a coroutine that reports its progress and
saves what it needs in order to go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from shammah_chassis.errors import (
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    ShammahError,
    UnavailableError,
)
from shammah_chassis.scopes import Caller
from shammah_chassis.tasks import stop_tasks
from shammah_chassis.ulid import new_ulid

from shammah_gateway.changes import Changes
from shammah_gateway.job_record import JobRecord, digest_of, name_failure
from shammah_gateway.job_store import JobStore
from shammah_gateway.job_work import Progress, Work

MAX_WAIT_SECONDS = 25.0
MAX_RUNNING = 16
MAX_PER_CALLER = 8
MAX_KEPT = 1000
MAX_RESUMES = 5
OnProgress = Callable[[float, str], Awaitable[None]]
# What those who give a job its work need besides.
__all__ = ["JobBook", "JobRecord", "OnProgress", "Progress", "Work"]
_log = logging.getLogger(__name__)


class JobBook:
    """All jobs of this gateway; `folder` keeps them as JSON, the newest thousand of those that ended."""

    def __init__(self, folder: Path) -> None:
        self._store = JobStore(folder)
        self._records = {record.id: record for record in self._store.load()}
        self._keys = {record.key: record.id for record in self._records.values() if record.request_id}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, ShammahError] = {}
        self._works: dict[str, Work] = {}
        self._changed = Changes()
        self._closed = False

    def start(
        self,
        kind: str,
        caller: Caller,
        work: Work,
        *,
        arguments: Mapping[str, Any] | None = None,
        request_id: str = "",
        exclusive: bool = False,
    ) -> JobRecord:
        """Start work as a job of `caller`, or return the job that was started with this `request_id` before.

        Raises:
            InvalidInputError: `request_id` came with other arguments before.
            OverloadedError: too many jobs run. UnavailableError: the gateway stops.
            PreconditionError: `exclusive`, and a job of this kind runs; the message names it.
            StorageFullError: a promise (`request_id`, `exclusive`) can't be written down, so nothing is started.
        """
        given = dict(arguments or {})
        if found := self.find(caller.name, kind, request_id, given):
            return found
        self._check_room(kind, caller.name, exclusive=exclusive)
        record = JobRecord(
            id=new_ulid(),
            kind=kind,
            owner=caller.name,
            created_at=time.time(),
            scopes=sorted(caller.scopes),
            request_id=request_id,
            digest=digest_of(given),
            arguments=given,
        )
        if request_id or exclusive:
            self._store.write(record, durable=True)
        else:
            self._store.note(record)
        self._records[record.id] = record
        if request_id:
            self._keys[record.key] = record.id
        self._begin(record, work)
        return record

    def find(
        self, owner: str, kind: str, request_id: str, arguments: Mapping[str, Any] | None = None
    ) -> JobRecord | None:
        """Return the job that was started with a request id, or None (also for no request id).

        Raises:
            InvalidInputError: `arguments` are given and are not those of then.
        """
        record = self._records.get(self._keys.get((owner, kind, request_id), "")) if request_id else None
        if record is not None and arguments is not None and digest_of(arguments) != record.digest:
            raise InvalidInputError(
                f"request id {request_id!r} was used for job {record.id} with other arguments; choose a new one"
            )
        return record

    def get(self, job: str, owner: str) -> JobRecord:
        """Return a job; NotFoundError for an unknown one and for somebody else's alike."""
        record = self._records.get(job)
        if record is None or record.owner != owner:
            raise NotFoundError(f"there is no job {job!r} of yours")
        return record

    def running(self, kind: str = "", owner: str = "") -> list[JobRecord]:
        """Return the jobs that have not ended, oldest first; of one kind or one owner if named."""
        return [
            record
            for _, record in sorted(self._records.items())
            if not record.ended and kind in ("", record.kind) and owner in ("", record.owner)
        ]

    def results(self, kind: str) -> list[dict[str, Any]]:
        """Return the results of the jobs of one kind that are done, of all callers, the newest first."""
        return [
            record.result
            for _, record in sorted(self._records.items(), reverse=True)
            if record.kind == kind and record.state == "done" and record.result is not None
        ]

    def resume(
        self, make: Callable[[JobRecord], Work], check: Callable[[JobRecord], None] = lambda _: None
    ) -> list[JobRecord]:
        """Start again what a restart interrupted; `make` returns its work, or raises a named error if there is none.

        A job that a restart interrupted five times while it ran fails: it may be what ends the process. So does one
        that `check` raises ForbiddenError for: what it left going elsewhere is ended.
        """
        found = [record for record in self.running() if record.id not in self._tasks]
        for record in found:
            # Stopped in order it is queued, and then it is not to blame.
            record.resumes += record.state == "running"
            if record.resumes > MAX_RESUMES:
                self._fail(record, "unavailable", f"it was started again {MAX_RESUMES} times and never ended")
                continue
            try:
                work = make(record)
            except ShammahError as error:
                self._fail(record, error.code, f"it can't go on after the restart: {error.message}")
                continue
            try:
                check(record)
                _log.info("job %s (%s) goes on after a restart", record.id, record.kind)
            except ForbiddenError as error:
                self._mark_revoked(record, error)
            self._begin(record, work)
        return found

    async def cancel(self, job: str, owner: str) -> JobRecord:
        """Stop a job and return it when it has ended, at the latest after 25 s; one that has ended stays as it is.

        A caller that goes away does not stop the stopping, nor does a restart.

        Raises:
            NotFoundError: no such job of this owner.
        """
        record = self.get(job, owner)
        if not record.ended and not record.cancelling:
            record.cancelling, record.stage = True, "stopping"
            self._store.note(record, durable=True)
            self._begin_cancel(record)
        return await self.wait(record)

    def revoke(self, record: JobRecord, error: ForbiddenError) -> None:
        """Stop a job that its owner may have run no longer: it fails with `error`. One that stops already is left."""
        # While the gateway stops nothing is begun: the next start looks at the owner again.
        if not self._closed and not record.ended and not record.cancelling:
            self._mark_revoked(record, error)
            self._begin_cancel(record)

    def _mark_revoked(self, record: JobRecord, error: ForbiddenError) -> None:
        if record.cancelling:
            return
        _log.warning("job %s (%s) is stopped: %s", record.id, record.kind, error.message)
        record.cancelling, record.stage = True, "stopping"
        # Kept with the record: a restart in the middle of the stopping makes it no wish of its caller's.
        record.error_code, record.error_message = error.code, error.message
        self._store.note(record, durable=True)

    def raise_failure(self, record: JobRecord) -> None:
        """Raise the named error that a job failed with, if it failed."""
        if record.state == "failed":
            raise self._failures.get(record.id) or name_failure(record.error_code, record.error_message)

    async def wait(
        self,
        record: JobRecord,
        seconds: float = MAX_WAIT_SECONDS,
        *,
        accepted: bool = False,
        on_progress: OnProgress | None = None,
    ) -> JobRecord:
        """Return the job when it has ended, at the latest after `seconds` (at most 25) or when the gateway stops.

        With `accepted` also as soon as its work is under way. `on_progress` is awaited at each change on the way.
        """
        end = time.monotonic() + min(seconds, MAX_WAIT_SECONDS)
        told: tuple[float, str] = (0.0, "")
        while True:
            if on_progress is not None and told != (now := (record.progress, record.stage)):
                told = now
                await on_progress(*now)
                continue
            left = end - time.monotonic()
            if record.ended or self._closed or left <= 0 or (accepted and record.accepted):
                return record
            await self._changed.wait(left)

    async def close(self) -> None:
        """Stop all work in order; what has not ended goes on at the next start."""
        self._closed = True
        await stop_tasks(list(self._tasks.values()))
        self._changed.notify()

    def _check_room(self, kind: str, owner: str, *, exclusive: bool) -> None:
        if self._closed:
            raise UnavailableError("the gateway stops; ask again in a moment", retry_after_seconds=5.0)
        if exclusive and (others := self.running(kind)):
            other = others[0]
            whose = "of yours" if other.owner == owner else f"of {other.owner!r}"
            raise PreconditionError(
                f"job {other.id} {whose} runs {kind} already ({other.stage or other.state}); one at a time: "
                f"follow it by job={other.id!r}, or wait for its end"
            )
        own = self.running(owner=owner)
        if len(own) >= MAX_PER_CALLER:
            raise OverloadedError(
                f"{len(own)} jobs of yours run already, at most {MAX_PER_CALLER} may; the oldest is {own[0].id}",
                retry_after_seconds=5.0,
            )
        if len(self.running()) >= MAX_RUNNING:
            raise OverloadedError(f"{MAX_RUNNING} jobs run already", retry_after_seconds=5.0)

    def _begin(self, record: JobRecord, work: Work) -> None:
        self._works[record.id] = work
        if record.cancelling:
            self._begin_cancel(record)
        else:
            self._track(record, self._run(record, work))

    def _begin_cancel(self, record: JobRecord) -> None:
        self._track(record, self._cancel(record, self._tasks.get(record.id)))

    def _track(self, record: JobRecord, work: Any) -> None:  # noqa: ANN401 - a coroutine of ours
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"{record.kind} {record.id}")
        self._tasks[record.id] = task
        task.add_done_callback(lambda ended: self._untrack(record.id, ended))

    def _untrack(self, job: str, task: asyncio.Task[None]) -> None:
        # A cancellation takes the place of the work that it cancels.
        if self._tasks.get(job) is task:
            del self._tasks[job]

    async def _run(self, record: JobRecord, work: Work) -> None:
        record.state, record.started_at = "running", record.started_at or time.time()
        self._store.note(record)
        self._changed.notify()
        try:
            record.result = await work.run(Progress(record, self._store, self._changed))
            record.state, record.progress, record.stage = "done", 1.0, "done"
            # It ended before it could be stopped.
            record.error_code = record.error_message = ""
            self._end(record)
        except ShammahError as error:
            self._failures[record.id] = error
            self._fail(record, error.code, error.message)
        except asyncio.CancelledError:
            if not record.cancelling:
                record.state, record.stage = "queued", "goes on when the gateway is started again"
                self._store.note(record)
            raise
        except Exception:
            # The one place where a foreign error becomes a failed job; it is logged as that of the task.
            self._fail(record, "internal", "internal error")
            raise

    async def _cancel(self, record: JobRecord, task: asyncio.Task[None] | None) -> None:
        await stop_tasks([task])
        if record.ended:
            return
        told = ""
        work = self._works.get(record.id)
        if work is not None and work.stop is not None:
            try:
                told = await work.stop(record)
            except ShammahError as error:
                told = f"what it began elsewhere may go on: {error.message}"
            finally:
                # Whatever went wrong, its place is free again.
                self._note_stopped(record, told)
        else:
            self._note_stopped(record, told)

    def _note_stopped(self, record: JobRecord, told: str) -> None:
        if record.error_code:
            if told:
                _log.info("job %s is stopped: %s", record.id, told)
            self._fail(record, record.error_code, record.error_message)
            return
        record.state, record.stage = "cancelled", "cancelled"
        record.error_code, record.error_message = "cancelled", told or "stopped by its caller"
        self._end(record)

    def _fail(self, record: JobRecord, code: str, message: str) -> None:
        record.state, record.error_code, record.error_message = "failed", code, message
        self._end(record)

    def _end(self, record: JobRecord) -> None:
        record.ended_at = time.time()
        record.arguments, record.saved = {}, {}
        self._works.pop(record.id, None)
        self._store.note(record)
        self._forget_oldest(record.owner)
        self._changed.notify()

    def _forget_oldest(self, owner: str) -> None:
        # Each caller's own: nobody pushes out the request ids of another.
        ended = sorted(name for name, record in self._records.items() if record.ended and record.owner == owner)
        for name in ended[: max(0, len(ended) - MAX_KEPT)]:
            self._keys.pop(self._records.pop(name).key, None)
            self._failures.pop(name, None)
            self._store.remove(name)
