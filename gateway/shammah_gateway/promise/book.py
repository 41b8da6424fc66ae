"""Audits of the champion on disk, so that a restart forgets no broken promise. One small JSON file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from shammah_gateway.promise.evidence import Evidence, restore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of a release; nothing when it is another's."""

    since: float = 0.0
    evidence: dict[str, Evidence] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)


class PromiseBook:
    """The file; a damaged one is as none, and says so."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, release: str) -> Kept:
        """Return what is kept of `release`."""
        try:
            raw = json.loads(self._path.read_text("utf-8"))
            if raw["release"] != release:
                return Kept()
            evidence = {
                str(name): restore(entry["audits"], entry["bad"], entry["logs"])
                for name, entry in raw["categories"].items()
            }
            return Kept(float(raw["since"]), evidence, set(raw["withdrawn"]))
        except FileNotFoundError:
            return Kept()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s can't be read, its audits are lost: %s", self._path, error)
            return Kept()

    def write(self, release: str, since: float, evidence: Mapping[str, Evidence], withdrawn: Set[str]) -> None:
        """Keep the audits of `release` in the place of what was there; a full disk costs the memory, nothing else."""
        categories = {
            name: {"audits": entry.audits, "bad": entry.bad, "logs": entry.logs} for name, entry in evidence.items()
        }
        row = {"release": release, "since": since, "categories": categories, "withdrawn": sorted(withdrawn)}
        aside = self._path.with_suffix(".new")
        try:
            aside.write_text(json.dumps(row), "utf-8")
            os.replace(aside, self._path)
        except OSError as error:
            _log.warning("audits can't be kept on disk: %s", error)
