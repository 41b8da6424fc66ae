"""Figures of the learning study, from what `finish` left of each arm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning_arms import ARMS, ASIDE, EXAM_ROWS, NARROW, UNSEEN
from learning_scores import Row, Share, count_local, group_by, read_goods, read_served
from system import Figure

CONFIDENCE = "notes: ranked by the sum of log-probabilities, threshold picked on test"


def make_figures(work: Path, listed: Mapping[str, Sequence[str]]) -> list[Figure]:
    """Return the figures of every arm that is finished below `work`; `listed`: test ids by family."""
    ids = {name for names in listed.values() for name in names}
    figures: list[Figure] = []
    for arm in ("every", "all"):
        if (work / arm / "graded.jsonl.gz").is_file():
            figures += _accuracy(work / arm, ids)
            break
    if _is_finished(work / "all"):
        figures += _shares(read_served(work / "all"), ids)
    if _is_finished(work / "unseen"):
        figures.append(_unseen(read_served(work / "unseen"), ids))
    for name, arm_ in ARMS.items():
        if name.startswith("narrow_") and _is_finished(work / name):
            figures.append(_few(name, arm_.train_rows, read_served(work / name), ids))
    return figures


def _is_finished(folder: Path) -> bool:
    return (folder / "result.json").is_file()


def _accuracy(folder: Path, ids: set[str]) -> list[Figure]:
    goods = read_goods(folder)
    listed = {name: entry for name, entry in goods.items() if name in ids}
    families = _by_family(listed)
    figures = [
        Figure(
            "accuracy_all",
            _mean([good for _, good in listed.values()]),
            "share",
            f"{len(listed)} listed test rows; mean of {len(families)} families {_mean(list(families.values())):.4f}; "
            f"without {ASIDE} {_mean([good for name, good in listed.values() if name != ASIDE]):.4f}; whole test files "
            f"{_mean([good for _, good in goods.values()]):.4f} on {len(goods)} rows; arm {folder.name}",
            "notes: 96 new tokens, no tests run",
            0.510,
        )
    ]
    figures += [Figure(f"accuracy.{name}", value, "share") for name, value in families.items()]
    path = folder / "train.json"
    if path.is_file():
        about = json.loads(path.read_text("utf-8"))
        figures.append(_rate(about))
    return figures


def _rate(about: Mapping[str, Any]) -> Figure:
    return Figure(
        "train_ex_s",
        about["examples_a_second"],
        "examples/s",
        f"{about['tokens_a_second']:.0f} real tokens/s; steps alone {about['examples_a_second_steps']:.0f} examples/s; "
        f"{about['metrics']['rows']} rows, {about['hyper']['epochs']} passes, {about['metrics']['steps']} steps; "
        f"{about['device']}, torch {about['torch']}",
        "notes: plain loop",
        672,
    )


def _shares(scores: Sequence[Row], ids: set[str]) -> list[Figure]:
    listed = [row for row in scores if row["part"] == "test" and row["name"] in ids]
    whole = count_local(row for row in scores if row["part"] == "test")
    found = count_local(listed)
    narrow = count_local(row for row in listed if row["category"] in NARROW)
    routed = {name: count_local(rows) for name, rows in group_by(listed, "routed").items()}
    worst = max(((entry.error_interval[0], name) for name, entry in routed.items() if entry.local), default=(0.0, "-"))
    figures = [
        Figure(
            "local_share_all",
            found.share,
            "share",
            f"{found.local} of {found.rows} listed rows; whole test files {whole.share:.4f} of {whole.rows}; "
            f"train, dev and exam (up to {EXAM_ROWS} rows a family, a third at most) cut from the train files; "
            "thresholds by today's certify on the arm's scores",
            CONFIDENCE,
            0.377,
        ),
        _error("local_error_all", found, f"highest lower limit of a category: {worst[0]:.4f} ({worst[1]})"),
        Figure("local_share_narrow", narrow.share, "share", _say(narrow), f"{CONFIDENCE}, half of the data", 0.86),
        _error("local_error_narrow", narrow, "the eight narrow families"),
    ]
    for name, rows in group_by(listed, "category").items():
        entry = count_local(rows)
        right = _mean([bool(row["good"]) for row in rows])
        note = f"{_say(entry)}; asked all of them, the student is right in {right:.3f}"
        figures.append(Figure(f"local_share.{name}", entry.share, "share", note))
    for name, entry in routed.items():
        if entry.local:
            figures.append(_error(f"local_error.{name}", entry, "rows that the router took for this category"))
    return figures


def _unseen(scores: Sequence[Row], ids: set[str]) -> Figure:
    rows = [row for row in scores if row["part"] == "test" and row["name"] in ids and row["category"] in UNSEEN]
    parts = {name: count_local(own) for name, own in group_by(rows, "category").items()}
    found = count_local(rows)
    each = ", ".join(f"{name} {1 - entry.share:.4f}" for name, entry in parts.items())
    known = count_local(r for r in scores if r["part"] == "test" and r["name"] in ids and r["category"] not in UNSEEN)
    note = f"{found.rows} listed rows of {len(parts)} families left out together: {each}; "
    return Figure(
        "unseen_family_forwarded",
        1 - found.share,
        "share",
        f"{note}of the other families {known.share:.4f} were answered locally, {known.error:.4f} of these bad",
    )


def _few(name: str, rows: int, scores: Sequence[Row], ids: set[str]) -> Figure:
    found = count_local(row for row in scores if row["part"] == "test" and row["name"] in ids)
    low, high = found.error_interval
    return Figure(
        f"local_share_at_{rows}",
        found.share,
        "share",
        f"narrow families, {rows} random train rows evenly over them, certified thresholds; dev and exam as for all "
        f"rows (up to {EXAM_ROWS} exam rows each); {_say(found)}, bad {found.error:.4f} "
        f"({low:.4f} to {high:.4f}); arm {name}",
    )


def _error(name: str, found: Share, note: str) -> Figure:
    low, high = found.error_interval
    return Figure(name, found.error, "share", f"{found.errors} of {found.local}, {low:.4f} to {high:.4f}; {note}")


def _say(found: Share) -> str:
    return f"{found.local} of {found.rows} rows"


def _by_family(goods: Mapping[str, tuple[str, bool]]) -> dict[str, float]:
    groups: dict[str, list[bool]] = {}
    for family, good in goods.values():
        groups.setdefault(family, []).append(good)
    return {name: _mean(groups[name]) for name in sorted(groups)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
