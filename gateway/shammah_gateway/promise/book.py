"""What the watch knows of the releases that served last, on disk: a restart or a rollback forgets no broken promise.

One small JSON file. It knows no releases beyond their ids.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import StorageFullError

from shammah_gateway.promise.evidence import Evidence, restore

RELEASES = 12
"""So many releases are remembered, the last written: more than a store keeps to roll back to."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of a release; nothing of one that is new.

    `drifted`: stability index of the categories whose scores had drifted. `mix`: queries of each category in the first
    window under the release; `mix_drift` is the index of the mix, 0 while it has not drifted.
    """

    since: float = 0.0
    evidence: dict[str, Evidence] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    drifted: dict[str, float] = field(default_factory=dict)
    mix: dict[str, int] = field(default_factory=dict)
    mix_drift: float = 0.0


class PromiseBook:
    """The file; what is damaged in it is as none, and says so."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, release: str) -> Kept:
        """Return what is kept of `release`."""
        row = self._rows().get(release)
        if row is None:
            return Kept()
        try:
            return _parse(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s can't be read, the audits of %s are lost: %s", self._path, release, error)
            return Kept()

    def write(self, release: str, kept: Kept) -> None:
        """Keep what is known of `release` in the place of what was; a full disk costs the memory, nothing else."""
        rows = self._rows()
        rows.pop(release, None)
        rows[release] = _plain(kept)
        last = dict(list(rows.items())[-RELEASES:])
        try:
            write_atomic(self._path, json.dumps({"releases": last}).encode(), mode=0o600)
        except (OSError, StorageFullError) as error:
            _log.warning("audits can't be kept on disk: %s", error)

    def _rows(self) -> dict[str, Any]:
        """Return what is kept by release, the last written last; also of a file as it was when it held one."""
        try:
            raw = json.loads(self._path.read_text("utf-8"))
            if "release" in raw:
                return {str(raw["release"]): raw}
            return dict(raw["releases"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s can't be read, its audits are lost: %s", self._path, error)
            return {}


def _parse(row: Mapping[str, Any]) -> Kept:
    evidence = {
        str(name): restore(entry["audits"], entry["bad"], entry["logs"]) for name, entry in row["categories"].items()
    }
    return Kept(
        since=float(row["since"]),
        evidence=evidence,
        withdrawn=set(row["withdrawn"]),
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
        "drifted": kept.drifted,
        "mix": kept.mix,
        "mix_drift": kept.mix_drift,
    }
