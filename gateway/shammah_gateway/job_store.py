"""Job records on disk: one JSON file each, replaced as a whole. It does not know what runs.

A file that can't be read is set aside, so that one bad file never keeps a gateway from starting.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from shammah_chassis.atomic import ASIDE_PREFIX, sweep_aside, write_atomic
from shammah_chassis.errors import StorageFullError
from shammah_chassis.ulid import is_ulid

from shammah_gateway.job_record import JobRecord

ASIDE = "unreadable"
# Arguments are what users ask.
MODE = 0o600
_log = logging.getLogger(__name__)


class JobStore:
    """The folder of one gateway's jobs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        # What a killed writer left: the file that it was to replace is whole.
        sweep_aside(folder, older_than_seconds=0.0)

    def load(self) -> list[JobRecord]:
        """Return every record, oldest first; files that are none are moved to the folder `unreadable`."""
        reader = TypeAdapter(JobRecord)
        records = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = reader.validate_json(path.read_bytes())
                if not is_ulid(record.id) or path.stem != record.id:
                    raise ValueError(f"its id is {record.id!r}")
            except (OSError, ValidationError, ValueError) as error:
                self._set_aside(path, error)
                continue
            records.append(record)
        return records

    def write(self, record: JobRecord, *, durable: bool) -> None:
        """Replace the file of a record; `durable` also survives a loss of power, at the price of two fsyncs.

        Raises:
            StorageFullError: no room; what was there stays.
            OSError: the disk failed otherwise.
        """
        path = self._path(record.id)
        data = json.dumps(asdict(record)).encode()
        if durable:
            write_atomic(path, data, mode=MODE)
            return
        aside = path.with_name(f"{ASIDE_PREFIX}{record.id}")
        aside.unlink(missing_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as writer:
            writer.write(data)
        os.replace(aside, path)

    def note(self, record: JobRecord, *, durable: bool = False) -> None:
        """Write a record if that is possible: running work does not end because its memory is short."""
        try:
            self.write(record, durable=durable)
        except (StorageFullError, OSError) as error:
            _log.warning("job %s can't be kept on disk: %s", record.id, error)

    def remove(self, job: str) -> None:
        """Forget a job; a file that can't be removed stays, and fails nobody."""
        try:
            self._path(job).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the record of job %s can't be removed: %s", job, error)

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.json"

    def _set_aside(self, path: Path, error: Exception) -> None:
        _log.warning("%s is no job record and is set aside: %s", path, error)
        try:
            (self._folder / ASIDE).mkdir(exist_ok=True)
            os.replace(path, self._folder / ASIDE / path.name)
        except OSError as problem:
            _log.warning("%s stays where it is: %s", path, problem)
