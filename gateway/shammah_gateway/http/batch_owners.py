"""Whose a batch is: the account at the teacher is one for all callers, so each is shown its own batches only.

It knows names of batches and callers; nothing of what is in a batch.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from pathlib import Path

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import NotFoundError, ShammahError
from shammah_chassis.scopes import Caller

FILE_NAME = "batches_owned.json"
# Results are kept for 29 days by the API; older batches are not asked for again.
REMEMBERED = 10_000
# Who runs the gateway sees every batch of the account.
SEES_ALL = "admin"
_log = logging.getLogger(__name__)


class BatchOwners:
    """The callers that made the batches, the last 10,000, kept in `folder`; None keeps them in memory only."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / FILE_NAME if folder else None
        self._owners: OrderedDict[str, str] = OrderedDict(_load(self._path))
        self._saving = asyncio.Lock()

    def owns(self, batch: str, caller: Caller) -> bool:
        """Say whether a caller may see a batch."""
        return SEES_ALL in caller.scopes or self._owners.get(batch) == caller.name

    def check(self, batch: str, caller: Caller) -> None:
        """Raise NotFoundError unless a caller may see a batch: that there is one is not told."""
        if not self.owns(batch, caller):
            raise NotFoundError(f"batch {batch} was not found among those that {caller.name} has made here")

    async def note(self, batch: str, caller: Caller) -> None:
        """Keep who made a batch, on disk before this returns; a disk that fails is logged."""
        if not batch:
            return
        self._owners[batch] = caller.name
        while len(self._owners) > REMEMBERED:
            self._owners.popitem(last=False)
        if self._path is not None:
            # One after the other: an older image must not replace a newer one.
            async with self._saving:
                await asyncio.to_thread(_save, self._path, dict(self._owners))


def _load(path: Path | None) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    try:
        return {str(batch): str(name) for batch, name in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        _log.warning("%s can't be read, so earlier batches are shown to admins only: %s", path, error)
        return {}


def _save(path: Path, owners: dict[str, str]) -> None:
    try:
        write_atomic(path, json.dumps(owners).encode())
    except (ShammahError, OSError) as error:
        _log.warning("%s can't be written, so batches may be lost to their callers at a restart: %s", path, error)
