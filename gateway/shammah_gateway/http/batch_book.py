"""What batches cost: known when their results are read, and booked once for each batch, also after a restart.

It reads bodies that were passed on; it passes nothing on itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.scopes import Caller

from shammah_gateway.http.door import parse_object
from shammah_gateway.money.ledger import Hold, Ledger
from shammah_gateway.money.usage import Usage, bound_usage, read_usage

FILE_NAME = "batches_booked.json"
# Results are kept for 29 days by the API; older batches are not read again.
REMEMBERED = 10_000
_log = logging.getLogger(__name__)


class BatchBook:
    """Books batches. A batch counts as one call; its holds last until its results were read, or the gateway stops."""

    def __init__(self, ledger: Ledger | None, folder: Path | None) -> None:
        self._ledger = ledger
        self._path = folder / FILE_NAME if folder else None
        self._booked: OrderedDict[str, None] = OrderedDict.fromkeys(_load(self._path))
        self._holds: dict[str, Hold] = {}
        # One thread: an older list must not replace a newer one. It is started by the first batch.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def take(self, body: bytes, caller: Caller) -> Hold | None:
        """Count a batch before it is made; raises as `Ledger.take`, and InvalidInputError when it is no JSON object."""
        if self._ledger is None:
            return None
        models: tuple[str, ...] = ()
        worst: Usage | None = None
        if self._ledger.caps.any_usd:
            models, worst = _bound(body)
        return self._ledger.take("answer", caller=caller.name, models=models, worst=worst)

    def remember(self, batch: str, hold: Hold | None) -> None:
        """Keep the hold of a batch that was made."""
        if hold is not None and batch:
            self._holds[batch] = hold

    def refuse(self, hold: Hold | None) -> None:
        """Give the hold back: the batch was refused."""
        if hold is not None and self._ledger is not None:
            self._ledger.release(hold)

    def lose(self, hold: Hold | None) -> None:
        """Nobody knows whether the batch was made."""
        if hold is not None and self._ledger is not None:
            self._ledger.give_up(hold)

    def read(self, batch: str, caller: Caller) -> Reading:
        """Return the reader of a batch's results."""
        return Reading(self, batch, caller)

    def book(self, batch: str, caller: Caller, found: list[tuple[str, Usage]]) -> None:
        """Book the results of a batch, unless they were before."""
        if self._ledger is None or batch in self._booked:
            return
        for model, usage in found:
            self._ledger.book("answer", model=model, usage=replace(usage, batch=True), caller=caller.name)
        if (hold := self._holds.pop(batch, None)) is not None:
            self._ledger.release(hold)
        self._booked[batch] = None
        while len(self._booked) > REMEMBERED:
            self._booked.popitem(last=False)
        if self._path is not None:
            asyncio.get_running_loop().run_in_executor(self._writer, _save, self._path, list(self._booked))


class Reading:
    """The results of one batch as they pass: a JSON object a line."""

    def __init__(self, book: BatchBook, batch: str, caller: Caller) -> None:
        self._book = book
        self._batch = batch
        self._caller = caller
        self._rest = b""
        self._found: list[tuple[str, Usage]] = []

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._take(line)

    def finish(self) -> None:
        """All results have passed."""
        self._take(self._rest)
        self._book.book(self._batch, self._caller, self._found)

    def _take(self, line: bytes) -> None:
        if b'"usage"' not in line:
            return
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            message = json.loads(line)["result"]["message"]
            self._found.append((str(message["model"]), read_usage(message["usage"])))


def _bound(body: bytes) -> tuple[tuple[str, ...], Usage]:
    """Return the models of a batch and the most that it can be billed.

    Raises:
        InvalidInputError: not a JSON object, or a row does not say how much it may be answered: no cap could be kept.
    """
    requests = parse_object(body).get("requests")
    if not isinstance(requests, list):
        raise InvalidInputError("requests must be a list of objects with custom_id and params")
    params = {number: row["params"] for number, row in enumerate(requests) if _has_params(row)}
    models = tuple(dict.fromkeys(str(row.get("model", "")) for row in params.values()))
    output = sum(_read_most(number, row.get("max_tokens")) for number, row in params.items())
    return models, bound_usage(len(body), output, cached=b'"cache_control"' in body)


def _has_params(row: object) -> bool:
    """Say whether a row may be answered; what is none of the protocol is refused by the API as a whole."""
    return isinstance(row, dict) and isinstance(row.get("params"), dict)


def _read_most(number: int, most: object) -> int:
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidInputError(
            f"requests.{number}.params.max_tokens is {most!r}; allowed where spending is capped: a whole number above 0"
        )
    return most


def _load(path: Path | None) -> list[str]:
    if path is None or not path.exists():
        return []
    try:
        return [str(batch) for batch in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        _log.warning("%s can't be read, so a batch may be booked twice: %s", path, error)
        return []


def _save(path: Path, booked: list[str]) -> None:
    try:
        write_atomic(path, json.dumps(booked).encode())
    except (ShammahError, OSError) as error:
        _log.warning("%s can't be written, so a batch may be booked twice: %s", path, error)
