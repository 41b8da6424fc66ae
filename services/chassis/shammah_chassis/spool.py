"""A bounded spool on disk for envelopes that can't be sent now.

One file a record: a header line with the SHA-256, the source and the size, then the envelope. A record is durable
before `append` returns and is deleted only after its publication was confirmed, so a kill at any point loses nothing
(it may send one record twice; it has the same message id). It does not know where envelopes are sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import fsync_folder, storage_errors, sweep_aside, write_new
from shammah_chassis.errors import InvalidInputError, StorageFullError
from shammah_chassis.examples import Envelope, Example

_SUFFIX = ".envelope"
_LOG = logging.getLogger(__name__)

Publish = Callable[[str, Envelope], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How much waits: records and their bytes, and how many damaged or refused records were set aside."""

    records: int
    bytes: int
    set_aside: int


class Spool:
    """Envelopes waiting in `folder`, at most `max_bytes` of them. One process owns a folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes is {max_bytes}; at least 1 is needed")
        folder.mkdir(parents=True, exist_ok=True)
        # We are the only owner: what lies aside was left by a kill before its append returned.
        sweep_aside(folder, older_than_seconds=0.0)
        self._folder = folder
        self._max_bytes = max_bytes
        self._sizes = {path.name: path.stat().st_size for path in sorted(folder.glob(f"*{_SUFFIX}"))}
        self._next = 1 + max((int(name.split(".")[0]) for name in self._sizes), default=0)
        self._writing = asyncio.Lock()
        self._draining = asyncio.Lock()

    def pending(self) -> int:
        """Return how many records wait."""
        return len(self._sizes)

    def state(self) -> SpoolState:
        """Return counts and bytes, for status pages."""
        damaged = self._folder / "set_aside"
        aside = sum(1 for _ in damaged.iterdir()) if damaged.is_dir() else 0
        return SpoolState(records=len(self._sizes), bytes=sum(self._sizes.values()), set_aside=aside)

    async def append(self, source: str, envelope: Envelope) -> None:
        """Write an envelope to disk; it is durable when this returns.

        Raises:
            StorageFullError: `max_bytes` would be passed or the disk is full; the envelope is not stored.
        """
        record = _encode(source, envelope.encode())
        async with self._writing:
            used = sum(self._sizes.values())
            if used + len(record) > self._max_bytes:
                raise StorageFullError(
                    f"the spool holds {used} of {self._max_bytes} bytes; {len(record)} more do not fit"
                )
            name = f"{self._next:020d}{_SUFFIX}"
            self._next += 1
            await _finish(self._keep(name, record))

    async def drain(self, publish: Publish) -> int:
        """Send what waits, oldest first, and return how many records were sent.

        `publish(source, envelope)` returns only when the envelope is safely stored. The first error that it raises
        ends the drain and is passed on, the record stays; only InvalidInputError, which no retry mends, sets the
        record aside. A record that is torn or changed is set aside too.
        """
        sent = 0
        async with self._draining:
            while self._sizes:
                name = min(self._sizes)
                record = await self._read(name)
                if record is None:
                    continue
                try:
                    source, data = _decode(record)
                    await publish(source, Envelope.decode(data))
                except InvalidInputError as error:
                    _LOG.error("spool: record %s is set aside: %s", name, error)
                    await _finish(self._give_up(name, self._set_aside))
                else:
                    sent += 1
                    await _finish(self._give_up(name, self._remove))
        return sent

    async def take_out(self, matches: Callable[[Example], bool]) -> int:
        """Remove the examples that match from what waits, for good; returns how many. The others go on waiting.

        Raises:
            StorageFullError: there is no room to write what stays; nothing is lost.
        """
        taken = 0
        async with self._draining:
            for name in sorted(self._sizes):
                record = await self._read(name)
                if record is None:
                    continue
                try:
                    source, data = _decode(record)
                    examples = Envelope.decode(data).examples
                except InvalidInputError:
                    continue  # `drain` sets it aside
                kept = tuple(row for row in examples if not matches(row))
                if len(kept) == len(examples):
                    continue
                if kept:
                    await self.append(source, Envelope(kept))
                await _finish(self._give_up(name, self._remove))
                taken += len(examples) - len(kept)
        return taken

    async def _keep(self, name: str, record: bytes) -> None:
        await asyncio.to_thread(self._write, self._folder / name, record)
        self._sizes[name] = len(record)

    async def _read(self, name: str) -> bytes | None:
        """Return a record that waits; None if somebody took it away, then it waits no more."""
        try:
            return await asyncio.to_thread((self._folder / name).read_bytes)
        except FileNotFoundError:
            _LOG.error("spool: record %s is gone", name)
            self._sizes.pop(name, None)
            return None

    async def _give_up(self, name: str, remove: Callable[[str], None]) -> None:
        await asyncio.to_thread(remove, name)
        self._sizes.pop(name, None)

    def _write(self, path: Path, record: bytes) -> None:
        with storage_errors("the spool"):
            write_new(path, record, mode=0o600)

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        fsync_folder(self._folder)

    def _set_aside(self, name: str) -> None:
        target = self._folder / "set_aside"
        target.mkdir(exist_ok=True)
        os.replace(self._folder / name, target / name)
        fsync_folder(target)
        fsync_folder(self._folder)


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what a thread does to the folder and what is noted of it, also where the caller has no time left.

    A thread can't be called back: were its end not noted, the folder and what is known of it would differ.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.warning("spool: %s", error)
        raise


def _encode(source: str, data: bytes) -> bytes:
    header = {"sha256": _digest(source, data), "size": len(data), "source": source}
    return json.dumps(header).encode() + b"\n" + data


def _decode(record: bytes) -> tuple[str, bytes]:
    line, _, data = record.partition(b"\n")
    try:
        header = json.loads(line)
        source, size, digest = str(header["source"]), int(header["size"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"its header can't be read: {error}") from error
    if len(data) != size or _digest(source, data) != digest:
        raise InvalidInputError(f"its checksum is wrong: {len(data)} of {size} bytes")
    return source, data


def _digest(source: str, data: bytes) -> str:
    return hashlib.sha256(source.encode() + b"\n" + data).hexdigest()
