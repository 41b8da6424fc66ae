"""Figures and plots of the studies on a GPU whose points are kept in `results/raw`: choice of examples, forgetting.

python tests/bench/learning_studies.py
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from learning_arms import NARROW
from learning_results import merge_figures
from matplotlib import pyplot
from scipy import stats
from shammah_chassis.learning_curve import Curve, Point
from system import RESULTS, Figure

RAW = RESULTS / "raw"
DEAD = 0.05
"""A family that is never above this accuracy learns nothing here: responses too long, or no tests run."""
_AS_SET = "kept_0.1"
"""The setting of `TrainerSettings.sft_kept`: the figure without a suffix is of it."""
Curves = dict[tuple[str, int], list[tuple[int, float]]]


def main() -> None:
    """Read the points, write figures into `results/learning.json` and plots beside it."""
    figures = []
    if (RAW / "active.jsonl").is_file():
        lines = [json.loads(line) for line in (RAW / "active.jsonl").read_text("utf-8").splitlines()]
        # A chain that was cut short is made again from its start: the last line of a point counts.
        points = list({(line["arm"], line["seed"], line["budget"]): line for line in lines}.values())
        if not all("shares" in point for point in points):
            print("active.jsonl is of the study before 2026-11-30, without shares by family: its figures stay")
            points = []
    else:
        points = []
    if points:
        figures += compare_choices(points, "share")
        figures += compare_choices(points, "share_narrow", "_narrow")
        figures += compare_estimates(points)
        draw_curves(points, RESULTS / "learning_active.png")
    if (RAW / "forget.jsonl").is_file():
        runs = [json.loads(line) for line in (RAW / "forget.jsonl").read_text("utf-8").splitlines()]
        figures += measure_forgetting(runs)
        draw_matrices(runs, RESULTS / "learning_forgetting.png")
    if (RAW / "online.txt").is_file():
        figures += compare_batches((RAW / "online.txt").read_text("utf-8").splitlines())
    figures += list_rates()
    merge_figures(figures, command="python tests/bench/learning_studies.py", where="NVIDIA H200")


def read_curves(runs: Sequence[Any], measure: str) -> Curves:
    """Return (budget, share) points by (arm, seed)."""
    curves: Curves = defaultdict(list)
    for run in runs:
        curves[run["arm"], run["seed"]].append((run["budget"], run[measure]))
    return {key: sorted(points) for key, points in curves.items()}


def level(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the curve made monotone: the nearest one that never falls (isotonic regression, pooled neighbours)."""
    pools: list[tuple[float, int]] = []
    for _, share in points:
        pools.append((share, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, many), (two, more) = pools.pop(-2), pools.pop()
            pools.append(((one * many + two * more) / (many + more), many + more))
    shares = [share for share, count in pools for _ in range(count)]
    return [(budget, share) for (budget, _), share in zip(points, shares, strict=True)]


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


def compare_choices(runs: Sequence[Any], measure: str, suffix: str = "") -> list[Figure]:
    """Return how many times more examples `random` and `uniform` need than `active`, for what random reaches.

    The geometric mean over seeds of the ratios at the end of random and at half of it. The interval is of 2,000
    bootstrap draws of the seeds.
    """
    points = read_curves(runs, measure)
    budgets = [budget for budget, _ in max(points.values(), key=len)]
    ends = extend_short(points, budgets)
    curves = {key: level(own) for key, own in points.items()}
    whole = {key for key, own in curves.items() if len(own) == len(budgets)}
    names = sorted(runs[0]["shares"])
    what = f"{sum(name in NARROW for name in names) if suffix else len(names)} {'narrow ' * bool(suffix)}families"
    figures = []
    for arm in ("random", "uniform"):
        seeds = [seed for name, seed in sorted(whole) if name == arm and {("random", seed), ("active", seed)} <= whole]
        if not seeds:
            continue
        at_half, at_end = [], []
        for seed in seeds:
            end = curves["random", seed][-1][1]
            for share, ratios in ((end / 2, at_half), (end, at_end)):
                # One that never comes there needs more than it was measured to.
                other, own = (min(needed(curves[name, seed], share), budgets[-1]) for name in (arm, "active"))
                ratios.append(other / own)
        each = [float(np.sqrt(half * end)) for half, end in zip(at_half, at_end, strict=True)]
        low, high = bootstrap(each)
        note = (
            f"{len(seeds)} paired seeds, geometric mean of the ratios at random's share at {budgets[-1]} "
            f"({_mean(at_end)}) and at half of it ({_mean(at_half)}); 95 % interval {low:.2f} to {high:.2f}. Share: of "
            f"the test rows of a family ({runs[0]['tested']}) that can be answered at 95 % precision by a threshold of "
            f"its own, mean of {what}. Below 1: active needs more. Monotone fits of the curves from {budgets[0]} rows "
            f"on: what is reached there counts as {budgets[0]}, what is never reached as {budgets[-1]}. Active "
            "also looks at 40 dev rows of each family"
        )
        for seed in seeds:
            if ("active", seed) in ends:
                end = ends["active", seed]
                note += f"; of seed {seed} active has no point past {end} rows: its share there stands for those"
        figures.append(Figure(f"active_vs_{arm}{suffix}", _mean(each), "ratio", note))
    return figures + list_shares(runs, measure, suffix, what)


def extend_short(curves: Curves, budgets: Sequence[int]) -> dict[tuple[str, int], int]:
    """Let the last share of active points that end early stand for those that are missing; return where they end."""
    ends = {}
    for key, points in curves.items():
        if key[0] == "active" and len(points) < len(budgets):
            ends[key] = points[-1][0]
            points += [(budget, points[-1][1]) for budget in budgets if budget > points[-1][0]]
    return ends


def list_shares(runs: Sequence[Any], measure: str, suffix: str, what: str) -> list[Figure]:
    """Return the mean share of each arm at some budgets."""
    return [
        Figure(
            f"share_{arm}{suffix}_{budget}",
            round(float(np.mean(found)), 4),
            "share",
            f"at 95 % precision in each of {what}; {len(found)} seeds",
        )
        for arm in ("random", "uniform", "active")
        for budget in (250, 500, 1000, 2000, 4000, 8000)
        if (found := [run[measure] for run in runs if run["arm"] == arm and run["budget"] == budget])
    ]


def bootstrap(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the geometric mean over draws of the seeds."""
    rng = np.random.default_rng(0)
    draws = np.log(ratios)[rng.integers(len(ratios), size=(2000, len(ratios)))].mean(axis=1)
    low, high = np.exp(np.quantile(draws, [0.025, 0.975]))
    return float(low), float(high)


def compare_estimates(runs: Sequence[Any]) -> list[Figure]:
    """Return the mean absolute error of the gains that learning curves predict, in points.

    Of each doubling of the examples in each arm and seed: the curve fitted to the accuracies until then (as
    `analyze_model` fits them to kept exams) predicts the rise of each category's accuracy.
    """
    series: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run["budget"]):
        series[run["arm"], run["seed"]].append(run)
    errors: list[float] = []
    rises: list[float] = []
    names: list[str] = []
    overall: list[float] = []
    for points in series.values():
        for before, after in pairwise(range(len(points))):
            found = [predict(points[: before + 1], points[after], name) for name in points[0]["accuracy"]]
            errors += [abs(predicted - real) for predicted, real in found]
            rises += [abs(real) for _, real in found]
            names += list(points[0]["accuracy"])
            overall.append(abs(float(np.mean([predicted - real for predicted, real in found]))))
    live = {name for run in runs for name, value in run["accuracy"].items() if value > DEAD}
    known = [error for name, error in zip(names, errors, strict=True) if name in live]
    nothing = [rise for name, rise in zip(names, rises, strict=True) if name in live]
    note = (
        f"{100 * float(np.mean(known)):.1f} for the {len(live)} families that learn at all, where predicting no gain "
        f"errs by {100 * float(np.mean(nothing)):.1f}. {len(overall)} rounds, {len(errors)} gains of single categories "
        f"at about twice the examples; of the mean over categories {100 * float(np.mean(overall)):.1f} points. "
        f"{runs[0]['tested']} answers measure an accuracy"
    )
    return [Figure("estimate_error_points", round(100 * float(np.mean(errors)), 1), "points", note)]


def predict(before: Sequence[Any], after: Any, name: str) -> tuple[float, float]:
    """Return the predicted and the realised rise of a category's accuracy."""
    rows = [run["counts"].get(name, 0) for run in (*before, after)]
    seen = [
        Point(count, run["accuracy"][name] * run["tested"], run["tested"])
        for count, run in zip(rows[:-1], before, strict=True)
    ]
    real = after["accuracy"][name] - before[-1]["accuracy"][name]
    return Curve(seen).gain(rows[-2], rows[-1] - rows[-2]), real


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
    """Return the mean loss of earlier families, as the trainer is set, and its upper 95 % limit, and what is beside it.

    That is: each other setting of replay, training without replay, and jointly, as far as they were run.
    """
    ways: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if run["way"] == "replay":
            ways["_".join(f"{name}_{value}" for name, value in run["more"].items()) or "plain"].append(run)
    joint = [run for run in runs if run["way"] == "joint"]
    without = [run["loss"] for run in runs if run["way"] == "none"]
    beside = f"; of joint training {end_of(joint):.1f} ({len(joint)} runs)" if joint else ""
    figures = []
    for way, own in sorted(ways.items()):
        told = "" if way == "plain" else f"; with plain replay {end_of(ways['plain']):.1f}"
        figures += list_losses(f"forgetting_points_{way}".removesuffix(f"_{_AS_SET}"), own, f"{told}{beside}")
    if without:
        note = f"the same without replay, mean of {len(without)} runs"
        figures.append(Figure("forgetting_points_without_replay", round(float(np.mean(without)), 2), "points", note))
    return figures


def end_of(runs: Sequence[dict[str, Any]]) -> float:
    """Return the mean accuracy over families after the last of them, in percent."""
    return 100 * float(np.mean([np.mean(run["matrix"][-1]) for run in runs]))


def list_rates() -> list[Figure]:
    """Return how fast the whole workload was trained on, with the compiler's cache empty and full."""
    figures = []
    for name, state in (("", "cold"), ("_warm", "warm")):
        path = RAW / f"speed_{state}.json"
        if not path.is_file():
            continue
        run = json.loads(path.read_text("utf-8"))["speed"][0]
        result = run["result"]
        note = (
            f"{result['rows']} rows, {run['hyper']['epochs']} passes, {result['steps']} steps; preparing, compiling "
            f"({result['timings'].get('compile', 0):.0f} s behind the first steps, its cache {state}) and both "
            f"evaluations included; {run['train_ex_s']:.0f} while it ran, {run['real_tokens_s']} real tokens/s; "
            f"{run['device']}, torch {run['torch']}; rows of all families as in the run of accuracy_all"
        )
        if run.get("started_seconds_before"):
            ahead = run["started_seconds_before"]
            note += f"; processes that compile begun {ahead:.1f} s earlier, as rows were read and encoded"
        rate = run["train_ex_s_with_preparing_and_evaluating"]
        figures.append(Figure(f"train_ex_s{name}", rate, "examples/s", note, "notes: plain loop", 672))
    return figures


def list_losses(name: str, runs: Sequence[dict[str, Any]], beside: str) -> list[Figure]:
    """Return the mean loss of runs of one setting and its upper limit."""
    losses = [run["loss"] for run in runs]
    # Student's t, one-sided: the deviation is estimated from these runs.
    reach = float(stats.t.ppf(0.95, len(losses) - 1)) / np.sqrt(len(losses))
    upper = np.mean(losses) + reach * np.std(losses, ddof=1)
    tested = [count for run in runs for count in run["tested"].values()]
    own = 100 * float(np.mean([run["matrix"][i][i] for run in runs for i in range(len(run["matrix"]))]))
    changes = "".join(f", {key} {value}" for key, value in runs[0]["more"].items())
    note = (
        f"{len(runs)} runs of six families one after another (600 rows each), replay 1:1{changes}; a family right "
        f"after it was taught {own:.1f}, mean accuracy at the end {end_of(runs):.1f}{beside}; {min(tested)} to "
        f"{max(tested)} held-out rows a family"
    )
    return [
        Figure(name, round(float(upper), 2), "points", f"upper 95 % limit of the mean loss; {note}"),
        Figure(f"{name}_mean", round(float(np.mean(losses)), 2), "points", note),
    ]


def draw_curves(runs: Sequence[Any], path: Path) -> None:
    """Draw share against examples for each way of choosing: all families, and the narrow ones."""
    figure, panes = pyplot.subplots(1, 2, figsize=(11, 4))
    for pane, measure in zip(panes, ("share", "share_narrow"), strict=True):
        curves = read_curves(runs, measure)
        for arm, colour in (("random", "tab:grey"), ("uniform", "tab:blue"), ("active", "tab:orange")):
            own = [dict(points) for (name, _), points in sorted(curves.items()) if name == arm]
            for points in own:
                pane.plot(list(points), list(points.values()), color=colour, alpha=0.3, linewidth=0.8)
            budgets = sorted({budget for points in own for budget in points})
            means = [np.mean([points[budget] for points in own if budget in points]) for budget in budgets]
            pane.plot(budgets, means, marker="o", color=colour, label=f"{arm}, mean of {len(own)} seeds")
        title = "all families" if measure == "share" else "narrow families"
        pane.set(xscale="log", xlabel="teacher-labelled examples", ylabel="share at 95 % precision", title=title)
        pane.set_ylim(bottom=0)
        pane.legend(fontsize=8)
        pane.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_matrices(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the accuracy of each family after each stage: a run of plain replay, and one of another way."""
    other = next((run for run in runs if run["way"] == "none"), None)
    other = other or next((run for run in runs if run["way"] == "replay" and run["more"]), None)
    shown = [next(run for run in runs if run["way"] == "replay" and not run["more"]), *([other] if other else [])]
    figure, panes = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 4.5), squeeze=False)
    for place, (pane, run) in enumerate(zip(panes[0], shown, strict=True)):
        # Families that were not taught yet are left blank.
        image = pane.imshow(np.array(run["matrix"], dtype=float), vmin=0, vmax=1, cmap="viridis")
        pane.set_xticks(range(6), run["order"], rotation=30, ha="right", fontsize=7)
        pane.set_yticks(range(6), [f"after {name}" for name in run["order"]] if place == 0 else [], fontsize=7)
        how = "".join(f", {name} {value}" for name, value in run["more"].items())
        pane.set_title("no replay" if run["way"] == "none" else f"replay 1:1{how}")
    figure.colorbar(image, ax=list(panes[0]), label="accuracy")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def _mean(ratios: Sequence[float]) -> float:
    """Geometric mean."""
    return round(float(np.exp(np.mean(np.log(ratios)))), 2)


if __name__ == "__main__":
    main()
