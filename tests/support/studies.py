"""Workload files of a tiny task, for studies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from shammah_chassis.examples import Example


def write_workload(path: Path, examples: Sequence[Example]) -> Path:
    """Write examples as a workload file whose family is their category."""
    lines = [
        json.dumps(
            {
                "id": f"{example.category}-{number}",
                "source": "made for tests",
                "license": "CC0",
                "category": "anything",
                "query": example.query_text,
                "reference": example.response,
                "metadata": {"family": example.category, "metric": example.grader},
            }
        )
        for number, example in enumerate(examples)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
