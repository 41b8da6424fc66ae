"""Figures and plots of the studies on a GPU whose points are kept in `results/raw`: choice of examples, forgetting.

python tests/bench/learning_studies.py
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from learning_results import merge_figures
from matplotlib import pyplot
from system import RESULTS, Figure

RAW = RESULTS / "raw"
Curves = dict[tuple[str, int], list[tuple[int, float]]]


def main() -> None:
    """Read the points, write figures into `results/learning.json` and plots beside it."""
    figures = []
    if (RAW / "active.jsonl").is_file():
        curves = read_curves(RAW / "active.jsonl")
        figures += compare_choices(curves)
        draw_curves(curves, RESULTS / "learning_active.png")
    if (RAW / "forget.jsonl").is_file():
        runs = [json.loads(line) for line in (RAW / "forget.jsonl").read_text("utf-8").splitlines()]
        figures += measure_forgetting(runs)
        draw_matrices(runs, RESULTS / "learning_forgetting.png")
    if (RAW / "online.txt").is_file():
        figures += compare_batches((RAW / "online.txt").read_text("utf-8").splitlines())
    merge_figures(figures, command="python tests/bench/learning_studies.py", where="NVIDIA H200")


def read_curves(path: Path) -> Curves:
    """Return (budget, share) points by (arm, seed)."""
    curves: Curves = defaultdict(list)
    for line in path.read_text("utf-8").splitlines():
        entry = json.loads(line)
        curves[entry["arm"], entry["seed"]].append((entry["budget"], entry["share"]))
    return {key: sorted(points) for key, points in curves.items()}


def needed(points: Sequence[tuple[int, float]], share: float) -> float:
    """Return how many examples reach a share, between two points by the logarithm; infinite where none does."""
    before: tuple[int, float] | None = None
    for budget, found in points:
        if found >= share:
            if before is None or found == before[1]:
                return float(budget)
            part = (share - before[1]) / (found - before[1])
            return float(np.exp(np.log(before[0]) + part * (np.log(budget) - np.log(before[0]))))
        before = (budget, found)
    return float("inf")


def compare_choices(curves: Curves) -> list[Figure]:
    """Return how many times more examples `random` (and `uniform`) needs than `active` for half of random's end."""
    ratios: dict[str, list[float]] = {"random": [], "uniform": []}
    seeds = sorted(seed for arm, seed in curves if arm == "active")
    for seed in seeds:
        half = curves["random", seed][-1][1] / 2
        active = needed(curves["active", seed], half)
        for arm, found in ratios.items():
            found.append(needed(curves[arm, seed], half) / active)
    last = max(budget for budget, _ in curves["active", seeds[0]])
    note = (
        f"{len(seeds)} paired seeds, at half of random's share at 8,000; active was measured to {last:,} examples. "
        "Share: of the narrow test rows at 95 % precision. Below 1: active needs more"
    )
    return [
        Figure("active_vs_random", _mean(ratios["random"]), "ratio", note),
        Figure("active_vs_uniform", _mean(ratios["uniform"]), "ratio", note),
        *(
            Figure(f"share_{arm}_{budget}", float(np.mean(found)), "share", "narrow test rows at 95 % precision")
            for arm in ("random", "uniform", "active")
            for budget in (500, 2000, 8000)
            if (
                found := [
                    dict(points)[budget]
                    for (name, _), points in curves.items()
                    if name == arm and budget in dict(points)
                ]
            )
        ),
    ]


def compare_batches(lines: Sequence[str]) -> list[Figure]:
    """Return seconds to 90 % exact exam answers one example a step over batched, each at its best rate, and both rates.

    The lines are what `learning_speed.py online` prints; its run was stopped before it wrote its own file.
    """
    found = [re.match(r"(.+), rate ([\d.e-]+): ([\d.]+) examples/s, at the end (.+)", line) for line in lines]
    runs = [(m[1], float(m[3]), ast.literal_eval(m[4])) for m in found if m]
    batched = [(end["seconds"], rate) for name, rate, end in runs if name == "batched" and end["exact"] >= 0.9]
    single = [(end["seconds"], rate) for name, rate, end in runs if name != "batched" and end["exact"] >= 0.9]
    note = (
        f"three label families, 300 exam rows, 90 % exact; best of 3 rates each: {min(single)[0]:.2f} s one example a "
        f"step (CUDA graph, {min(single)[1]:.0f} examples/s), {min(batched)[0]:.2f} s batched "
        f"({min(batched)[1]:.0f} examples/s)"
    )
    return [
        Figure("batch_vs_online", round(min(single)[0] / min(batched)[0], 1), "ratio", note),
        Figure("batch_vs_online_rate", round(min(batched)[1] / min(single)[1], 1), "ratio", "examples a second"),
    ]


def measure_forgetting(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """Return the mean loss of earlier families with replay (upper 95 % limit beside it), without, and jointly."""
    with_replay = [run["loss"] for run in runs if run["way"] == "replay"]
    without = [run["loss"] for run in runs if run["way"] == "none"]
    joint = [100 * float(np.mean(run["matrix"][-1])) for run in runs if run["way"] == "joint"]
    end = [100 * float(np.mean(run["matrix"][-1])) for run in runs if run["way"] == "replay"]
    upper = np.mean(with_replay) + 1.645 * np.std(with_replay, ddof=1) / np.sqrt(len(with_replay))
    note = (
        f"{len(with_replay)} runs of six families one after another (600 rows each), replay 1:1; mean accuracy at the "
        f"end {np.mean(end):.1f}, of joint training {np.mean(joint):.1f}"
    )
    return [
        Figure("forgetting_points", round(float(upper), 2), "points", f"upper 95 % limit of the mean loss; {note}"),
        Figure("forgetting_points_mean", round(float(np.mean(with_replay)), 2), "points", note),
        Figure(
            "forgetting_points_without_replay", round(float(np.mean(without)), 2), "points", "the same without replay"
        ),
    ]


def draw_curves(curves: Curves, path: Path) -> None:
    """Draw share against examples for each way of choosing."""
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for arm, colour in (("random", "tab:grey"), ("uniform", "tab:blue"), ("active", "tab:orange")):
        for seed in sorted(seed for name, seed in curves if name == arm):
            budgets, shares = zip(*curves[arm, seed], strict=True)
            axes.plot(budgets, shares, marker="o", color=colour, label=arm if seed == 0 else None)
    axes.set(xscale="log", xlabel="teacher-labelled examples", ylabel="share at 95 % precision (narrow)", ylim=(0, 1))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_matrices(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw, for the first order and seed, the accuracy of each family after each stage, with and without replay."""
    figure, panes = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for pane, way in zip(panes, ("replay", "none"), strict=True):
        run = next(run for run in runs if run["way"] == way)
        image = pane.imshow(run["matrix"], vmin=0, vmax=1, cmap="viridis")
        pane.set_xticks(range(6), run["order"], rotation=30, ha="right", fontsize=7)
        pane.set_yticks(range(6), [f"after {name}" for name in run["order"]] if way == "replay" else [], fontsize=7)
        pane.set_title("replay 1:1" if way == "replay" else "no replay")
    figure.colorbar(image, ax=panes, label="accuracy")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def _mean(ratios: Sequence[float]) -> float:
    """Geometric mean."""
    return round(float(np.exp(np.mean(np.log(ratios)))), 2)


if __name__ == "__main__":
    main()
