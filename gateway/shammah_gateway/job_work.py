"""What a job's work is, and what it reports to while it runs. It does not know who waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shammah_gateway.changes import Changes
from shammah_gateway.job_record import JobRecord
from shammah_gateway.job_store import JobStore


class Progress:
    """What running work reports to, and where it keeps what it needs after a restart."""

    def __init__(self, record: JobRecord, store: JobStore, changed: Changes) -> None:
        self._record = record
        self._store = store
        self._changed = changed

    @property
    def job(self) -> str:
        """Id of the job: the same after a restart, so it may name the work elsewhere."""
        return self._record.id

    @property
    def state(self) -> dict[str, Any]:
        """What was saved last, {} at first; a copy."""
        return dict(self._record.saved)

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep `state` (JSON, in the place of what was saved) on disk before the next step is taken.

        A full disk is logged and does not end the work: it would only be lost for certain.
        """
        self._record.saved = dict(state)
        self._store.note(self._record, durable=True)

    def accept(self) -> None:
        """Say that the work is under way: a caller who does not want to wait may go."""
        self._record.accepted = True
        self._changed.notify()

    def report(self, share: float, stage: str, partial: dict[str, Any] | None = None) -> None:
        """Say how much is done (0 to 1), what is going on, and what is known already."""
        self._record.progress = min(1.0, max(0.0, share))
        self._record.stage = stage
        if partial is not None:
            self._record.result = partial
        self._changed.notify()


@dataclass(frozen=True, slots=True)
class Work:
    """What a job does. `run` returns the result; run again after a restart, it goes on from `progress.state`.

    `stop` is called after a cancelled `run` has ended: it ends what goes on elsewhere, and returns what to tell.
    """

    run: Callable[[Progress], Awaitable[dict[str, Any]]]
    stop: Callable[[JobRecord], Awaitable[str]] | None = None
