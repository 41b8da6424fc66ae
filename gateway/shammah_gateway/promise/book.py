"""What the watch knows of the releases that served last, on disk: a restart or a rollback forgets no broken promise.

One small JSON file. It knows no releases beyond their ids.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import StorageFullError

from shammah_gateway.promise.evidence import Evidence, restore

RELEASES = 12
"""So many releases are remembered, the last written: more than a store keeps to roll back to."""
BROKEN = 100
"""So many that broke a promise are remembered, however long ago: a pinned release can be gone back to at any time."""
RETRY_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of a release; nothing of one that is new.

    `withdrawn` by audits of this gateway, `elsewhere` by those of others.
    `drifted`: stability index of the categories whose scores had drifted. `mix`: queries of each category in the first
    window under the release; `mix_drift` is the index of the mix, 0 while it has not drifted.
    """

    since: float = 0.0
    evidence: dict[str, Evidence] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    drifted: dict[str, float] = field(default_factory=dict)
    mix: dict[str, int] = field(default_factory=dict)
    mix_drift: float = 0.0


class PromiseBook:
    """The file, written by one process; what is damaged in it is as none, and says so. `now` counts seconds."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        # What the disk did not take, by release: it holds here, and is written once the disk takes it.
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._tried_at = 0.0
        self._unreadable = False

    def read(self, release: str) -> Kept | None:
        """Return what is kept of `release`; None while the file can't be read, and nobody knows."""
        row = self._unwritten.get(release)
        if row is None:
            rows = self._rows()
            if rows is None:
                return None
            row = rows.get(release)
        if row is None:
            return Kept()
        try:
            return _parse(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s can't be read, the audits of %s are lost: %s", self._path, release, error)
            return Kept()

    def write(self, release: str, kept: Kept) -> None:
        """Keep what is known of `release` in the place of what was; what a full disk refuses is kept in memory."""
        self._unwritten.pop(release, None)
        self._unwritten[release] = _plain(kept)
        self._flush()

    def retry(self) -> None:
        """Write what the disk did not take, where there is such, and the last attempt is a while ago."""
        if self._unwritten and self._now() - self._tried_at >= RETRY_SECONDS:
            self._flush()

    def _flush(self) -> None:
        self._tried_at = self._now()
        rows = self._rows()
        if rows is None:
            return  # writing now would erase the others
        for release, row in self._unwritten.items():
            rows.pop(release, None)
            rows[release] = row
        try:
            write_atomic(self._path, json.dumps({"releases": _last(rows)}).encode(), mode=0o600)
        except (OSError, StorageFullError) as error:
            _log.warning("audits can't be kept on disk, that is tried again: %s", error)
            return
        self._unwritten = {}

    def _rows(self) -> dict[str, Any] | None:
        """Return what is kept by release, the last written last; also of a file as it was when it held one.

        None where the disk does not give it: unlike a damaged file, that may be over at the next attempt.
        """
        try:
            text = self._path.read_text("utf-8")
            self._unreadable = False
            raw = json.loads(text)
            if "release" in raw:
                return {str(raw["release"]): raw}
            return dict(raw["releases"])
        except FileNotFoundError:
            return {}
        except OSError as error:
            if not self._unreadable:  # said once: every query asks again
                _log.warning("%s can't be read now: %s", self._path, error)
            self._unreadable = True
            return None
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("%s can't be read, its audits are lost: %s", self._path, error)
            return {}


def _last(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows that are kept, in their order: the last written, and the last that broke a promise."""
    broken = [
        release
        for release, row in rows.items()
        if isinstance(row, dict) and (row.get("withdrawn") or row.get("elsewhere"))
    ]
    keep = {*list(rows)[-RELEASES:], *broken[-BROKEN:]}
    return {release: row for release, row in rows.items() if release in keep}


def _parse(row: Mapping[str, Any]) -> Kept:
    evidence = {
        str(name): restore(entry["audits"], entry["bad"], entry["logs"]) for name, entry in row["categories"].items()
    }
    return Kept(
        since=float(row["since"]),
        evidence=evidence,
        withdrawn=set(row["withdrawn"]),
        elsewhere=set(row.get("elsewhere", ())),
        drifted={str(name): float(index) for name, index in row.get("drifted", {}).items()},
        mix={str(name): int(count) for name, count in row.get("mix", {}).items()},
        mix_drift=float(row.get("mix_drift", 0.0)),
    )


def _plain(kept: Kept) -> dict[str, Any]:
    return {
        "since": kept.since,
        "categories": {
            name: {"audits": entry.audits, "bad": entry.bad, "logs": entry.logs}
            for name, entry in kept.evidence.items()
        },
        "withdrawn": sorted(kept.withdrawn),
        "elsewhere": sorted(kept.elsewhere),
        "drifted": kept.drifted,
        "mix": kept.mix,
        "mix_drift": kept.mix_drift,
    }
