"""Plots of the learning study as PNG: local share against alpha, calibration, local share against examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from learning_arms import ARMS, NARROW
from learning_scores import Row, count_local, read_served, serve_at
from matplotlib import pyplot

ALPHAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2)
_BINS = 12


def draw_plots(work: Path, ids: set[str], out: Path) -> list[Path]:
    """Draw what the finished arms below `work` allow; return the files."""
    drawn = []
    if (work / "all" / "result.json").is_file():
        scores = read_served(work / "all")
        drawn.append(draw_alpha(scores, ids, out / "learning_alpha.png"))
        routed = [row for row in scores if row["part"] == "test" and row["name"] in ids and row["routed"]]
        if len(routed) >= _BINS:
            drawn.append(draw_calibration(routed, out / "learning_calibration.png"))
    few = [arm for arm in ARMS.values() if arm.train_rows and (work / arm.name / "result.json").is_file()]
    if few:
        points = [(arm.train_rows, read_served(work / arm.name)) for arm in few]
        drawn.append(draw_examples(points, ids, out / "learning_examples.png"))
    return drawn


def draw_alpha(scores: Sequence[Row], ids: set[str], path: Path) -> Path:
    """Certify at each alpha on dev and exam, serve the listed test rows: share, and errors against the promise."""
    listed = [row for row in scores if row["part"] == "test" and row["name"] in ids]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    for label, asked in (
        ("all families", listed),
        ("narrow families", [row for row in listed if row["category"] in NARROW]),
    ):
        found = [serve_at(scores, alpha=alpha, asked=asked) for alpha in ALPHAS]
        left.plot(ALPHAS, [entry.share for entry in found], marker="o", label=label)
        low, high = zip(*(entry.error_interval for entry in found), strict=True)
        errors = [entry.error for entry in found]
        spread = [np.subtract(errors, low).clip(0), np.subtract(high, errors).clip(0)]
        right.errorbar(ALPHAS, errors, yerr=spread, marker="o", capsize=2, label=label)
    right.plot(ALPHAS, ALPHAS, color="grey", linestyle="--", label="promise")
    left.set(xlabel="promised error alpha", ylabel="share answered locally", ylim=(0, 1))
    right.set(xlabel="promised error alpha", ylabel="bad among local answers (95 %)", ylim=(0, 0.25))
    return _finish(figure, (left, right), path)


def draw_calibration(rows: Sequence[Row], path: Path) -> Path:
    """Quality of rows in bins of equal size against the share of good answers."""
    quality = np.array([row["quality"] for row in rows])
    good = np.array([row["good"] for row in rows], dtype=float)
    bins = np.array_split(np.argsort(quality, kind="stable"), _BINS)
    means = [float(quality[chosen].mean()) for chosen in bins]
    shares = [float(good[chosen].mean()) for chosen in bins]
    error = sum(len(b) * abs(m - s) for b, m, s in zip(bins, means, shares, strict=True)) / len(rows)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    left.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    left.plot(means, shares, marker="o", label=f"expected calibration error {error:.3f}")
    left.set(xlabel="quality", ylabel="share good", xlim=(0, 1), ylim=(0, 1))
    right.hist([quality[good == 1], quality[good == 0]], bins=30, stacked=True, label=["good", "bad"])
    right.set(xlabel="quality", ylabel="rows", yscale="log")
    return _finish(figure, (left, right), path)


def draw_examples(points: Sequence[tuple[int, Sequence[Row]]], ids: set[str], path: Path) -> Path:
    """Local share and accuracy of the narrow families against the number of train rows."""
    points = sorted(points, key=lambda point: point[0])
    rows = [[row for row in scores if row["part"] == "test" and row["name"] in ids] for _, scores in points]
    figure, axis = pyplot.subplots(figsize=(5.5, 4))
    counts = [count for count, _ in points]
    axis.plot(counts, [count_local(own).share for own in rows], marker="o", label="answered locally, random examples")
    axis.plot(counts, [np.mean([row["good"] for row in own]) for own in rows], marker="s", label="accuracy")
    axis.set(xlabel="train rows, eight narrow families", ylabel="share", xscale="log", ylim=(0, 1))
    return _finish(figure, (axis,), path)


def _finish(figure: Any, axes: Sequence[Any], path: Path) -> Path:
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
