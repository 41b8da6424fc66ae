"""A checkpoint: a release, a snapshot of metrics and a position in the example log; what a rollback goes back to.

Plain values and their JSON. When one is made is the gateway's and the trainer's affair, how it is stored `artifacts`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from shammah_chassis.errors import ArtifactError
from shammah_chassis.ulid import is_ulid

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint.

    `id` is a ULID, `release` the id of the release that served, `position` the last log sequence it has learned from,
    `queries` how many queries had been served, `created_at` Unix seconds, `reason` why it was made.
    """

    id: str
    release: str
    position: int
    queries: int
    metrics: dict[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    reason: str = ""
    format_version: int = CHECKPOINT_FORMAT

    def to_json(self) -> str:
        """Return the text of `checkpoints/<id>.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ArtifactError: not JSON, a missing or wrong field, or a newer format.
    """
    try:
        raw = json.loads(text)
        if int(raw["format_version"]) > CHECKPOINT_FORMAT:
            raise ArtifactError(
                f"checkpoint has format {raw['format_version']}; this program reads up to {CHECKPOINT_FORMAT}"
            )
        if not is_ulid(raw["id"]):
            raise ValueError(f"id {raw['id']!r} is not a ULID")
        return Checkpoint(**raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"checkpoint can't be read: {error}") from error
