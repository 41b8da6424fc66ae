"""What a release does with rows that nobody learned from, decided as the cascade would: accuracy, local share, errors.

It knows scored rows and a release, no models. Intervals are exact (Clopper-Pearson, 95 %, two-sided).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import write_atomic
from shammah_chassis.releases import Release

from shammah_trainer.evidence import ScoredRow, is_local, passes
from shammah_trainer.intervals import interval

SCORES_NAME = "scores.jsonl.gz"


def measure(items: Sequence[ScoredRow], release: Release) -> dict[str, Any]:
    """Return the figures of all rows (`all`), by their own category and by the one that the router took them for.

    `macro_accuracy` is the mean over own categories. A promise is of a routed category: `promise_kept` says that no
    routed category's lower 95 % limit of the error is above the release's alpha.
    """
    by_own = _group(items, lambda item: item.row.category)
    by_route = _group([item for item in items if is_local(item, release)], lambda item: item.routed.category)
    own = {name: _count(rows, release) for name, rows in by_own.items()}
    routed = {name: _count(rows, release) for name, rows in by_route.items()}
    return {
        "all": _count(items, release),
        "macro_accuracy": sum(entry["accuracy"] for entry in own.values()) / len(own) if own else 0.0,
        "promise_kept": all(entry["local_error_interval"][0] <= release.alpha for entry in routed.values()),
        "categories": own,
        "routed": routed,
    }


def describe_rows(
    items: Iterable[ScoredRow], release: Release, *, part: str, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return what is known of each row as JSON objects: thresholds can be tried on them without any model."""
    limits = {name: entry.max_new_tokens for name, entry in release.categories.items()}
    return [
        {
            "part": part,
            "id": item.row.id,
            "name": names.get(item.row.id, ""),
            "category": item.row.category,
            "routed": item.routed.category,
            "local_probability": round(item.routed.local_probability, 6),
            "quality": item.judged.quality,
            "eligible": passes(item, prefilter=release.prefilter, limits=limits),
            "good": item.good,
            "local": is_local(item, release),
            "reason": item.rollout.reason,
            "tokens": item.rollout.tokens,
            "sum_logprob": item.rollout.statistics[0],
        }
        for item in items
    ]


def write_scores(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write described rows as JSON lines (gzip)."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    write_atomic(path, gzip.compress(text.encode(), 6, mtime=0))


def _group(items: Iterable[ScoredRow], key: Callable[[ScoredRow], str]) -> dict[str, list[ScoredRow]]:
    groups: dict[str, list[ScoredRow]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return dict(sorted(groups.items()))


def _count(items: Sequence[ScoredRow], release: Release) -> dict[str, Any]:
    local = [item for item in items if is_local(item, release)]
    good, errors = sum(item.good for item in items), sum(not item.good for item in local)
    return {
        "rows": len(items),
        "good": good,
        "accuracy": good / len(items) if items else 0.0,
        "accuracy_interval": list(interval(good, len(items))),
        "local": len(local),
        "local_share": len(local) / len(items) if items else 0.0,
        "local_share_interval": list(interval(len(local), len(items))),
        "local_errors": errors,
        "local_error": errors / len(local) if local else 0.0,
        "local_error_interval": list(interval(errors, len(local))),
        "forwarded": len(items) - len(local),
        "forwarded_though_good": good - (len(local) - errors),
    }
