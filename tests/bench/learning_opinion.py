"""Does a second opinion by a few samples tell what a response's log-probability doesn't? A study on dev rows.

    python tests/bench/learning_opinion.py --bundle .bench/learning.tar --base FOLDER --out OUT     # on a GPU
    python tests/bench/learning_opinion.py --read tests/bench/results/raw/opinion.jsonl.gz          # figures, anywhere

A student is taught by one of the ways of `learning_tune` and answers its dev rows once greedily and `SAMPLES` times at
`TEMPERATURE`. A sample agrees when the row's own grader takes it for equal to the greedy response. Two judges are
fitted in each family, cross-fitted over five folds: logistic regressions on the log-probability (its sum, its mean, the
length), and on these, the samples that agree, those of the very same text, and the best log-probability of a sample.
Families with under five right or wrong rows are left out. `share` is what each could answer at 95 % precision, its
threshold picked on the same rows: it compares the two and promises nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_arms import NARROW
from learning_results import merge_figures
from learning_rows import Told, ranked_share
from learning_tune import WAYS, Tuner
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.grading import grade
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.offline.teach import STUDY_HYPER, change_hyper
from system import Figure

SAMPLES, TEMPERATURE, FOLDS = 5, 0.7, 5
_ASIDE = ("math_gsm8k", "code_mbpp")  # hardly ever right, and as long as all the others together
Array = NDArray[np.float64]


def answer(options: argparse.Namespace) -> Path:
    """Teach, answer, sample; write one line a dev row."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(options.bundle) as bundle:
        bundle.extract("all/study.jsonl.gz", options.out, filter="data")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tuner = Tuner(options.out / "all" / "study.jsonl.gz", options.base / "generator", device=device, rows=options.dry)
    tuner.teach(change_hyper(STUDY_HYPER, [*WAYS[options.way], *options.hyper]))
    tuner.student.model.eval()
    tuner.greedy.load(tuner.student.model)
    kept = [number for number, row in enumerate(tuner.dev) if row.category not in _ASIDE]
    prompts, limits = [tuner.prompts[n] for n in kept], [tuner.limits[n] for n in kept]
    torch.manual_seed(0)
    started = time.monotonic()
    replies = tuner.greedy.answer(prompts, limits)
    greedy_seconds = time.monotonic() - started
    sampled = [tuner.greedy.sample(prompts, limits, temperature=TEMPERATURE) for _ in range(SAMPLES)]
    print(f"{len(kept)} rows: greedy {greedy_seconds:.1f} s, {SAMPLES} samples {time.monotonic() - started:.1f} s")
    path: Path = options.out / "opinion.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for place, number in enumerate(kept):
            others = [tuner.tokenizer.decode(list(each[place].ids)) for each in sampled]
            text, own = tuner.tokenizer.decode(list(replies[place].ids)), replies[place]
            row = tuner.dev[number]
            line = {
                "category": row.category,
                "good": own.whole and bool(grade(text, row.example).good),
                "sum": own.confidence,
                "tokens": len(own.ids) + 1,
                "same": sum(other == text for other in others),
                "agree": sum(_agrees(text, other, row) for other in others),
                "sample_sums": [each[place].confidence for each in sampled],
            }
            file.write(json.dumps(line) + "\n")
    return path


def _agrees(text: str, other: str, row: LedgerRow) -> bool:
    """Whether the row's grader takes `other` for the same answer as `text`."""
    if other == text or not text:
        return other == text
    try:
        return bool(grade(other, replace(row.example, reference=text, accepted=None, answers=())).good)
    except InvalidInputError:  # a response that is no reference for this grader
        return False


def compare(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return accuracy, shares and AUROC of each family without and with the agreement of samples."""
    found = {}
    for name in sorted({row["category"] for row in rows}):
        own = [row for row in rows if row["category"] == name]
        good = np.array([row["good"] for row in own])
        if not 5 <= good.sum() <= len(good) - 5:
            continue
        plain = np.array([(row["sum"], row["sum"] / row["tokens"], row["tokens"]) for row in own], dtype=np.float64)
        told = np.array([(row["agree"], row["same"], max(row["sample_sums"])) for row in own], dtype=np.float64)
        scores = {"without": cross_fit(plain, good), "with": cross_fit(np.hstack((plain, told)), good)}
        found[name] = {"rows": float(len(own)), "accuracy": float(good.mean())}
        for which, values in scores.items():
            items = [Told(name, value, bool(right)) for value, right in zip(values, good, strict=True)]
            found[name][f"share_{which}"] = ranked_share(items)
            found[name][f"auroc_{which}"] = auroc(values, good)
    return found


def cross_fit(features: Array, good: NDArray[np.bool_]) -> Array:
    """Return for each row the probability by a logistic regression fitted to the other folds."""
    fold = np.random.default_rng(0).permutation(len(good)) % FOLDS
    scores = np.zeros(len(good))
    for number in range(FOLDS):
        rest, own = fold != number, fold == number
        mean, scale = features[rest].mean(0), features[rest].std(0) + 1e-9
        weights = fit_logistic((features[rest] - mean) / scale, good[rest])
        scores[own] = expit((features[own] - mean) / scale @ weights[1:] + weights[0])
    return scores


def fit_logistic(features: Array, good: NDArray[np.bool_], *, decay: float = 1.0) -> Array:
    """Return intercept and weights of a logistic regression with a ridge of `decay` on the weights."""
    design = np.hstack((np.ones((len(good), 1)), features))
    sign = np.where(good, 1.0, -1.0)

    def lose(weights: Array) -> tuple[float, Array]:
        margin = sign * (design @ weights)
        penalty = decay * np.append(0.0, weights[1:])
        loss = float(np.logaddexp(0.0, -margin).sum() + 0.5 * penalty @ weights)
        return loss, -design.T @ (sign * expit(-margin)) + penalty

    result: Array = minimize(lose, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return result


def auroc(scores: Array, good: NDArray[np.bool_]) -> float:
    """Return the chance that a good row has the higher score (ties count half; Mann and Whitney 1947)."""
    ranks = rankdata(scores)
    count = int(good.sum())
    return float((ranks[good].sum() - count * (count + 1) / 2) / (count * (len(good) - count)))


def make_figures(found: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """Return the mean share and AUROC over families, without samples and with them."""
    rows = sum(values["rows"] for values in found.values())
    note = (
        f"mean of {len(found)} families, {rows:.0f} dev rows; judges cross-fitted in each on the log-probability, "
        f"and on it and the agreement of {SAMPLES} samples at temperature {TEMPERATURE}; threshold of the same rows"
    )
    figures = []
    for key, unit in (("share", "share"), ("auroc", "AUROC")):
        for which in ("without", "with"):
            value = float(np.mean([values[f"{key}_{which}"] for values in found.values()]))
            figures.append(Figure(f"opinion_{key}_{which}", round(value, 4), unit, note))
    return figures


def show(found: Mapping[str, Mapping[str, float]]) -> None:
    """Print a line for each family, and the means."""
    keys = ("accuracy", "share_without", "share_with", "auroc_without", "auroc_with")
    means = {
        title: {key: float(np.mean([found[name][key] for name in names])) for key in keys}
        for title, names in (("all", list(found)), ("narrow", [n for n in found if n in NARROW]))
        if names
    }
    for name, values in (*found.items(), *means.items()):
        print(f"{name:24}", *(f"{key} {values[key]:.4f}" for key in keys))


def main() -> None:
    """Answer where there is a GPU, compare where the answers are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="what `learning.py pack` wrote")
    parser.add_argument("--base", type=Path, help="folder with the base generator in generator/")
    parser.add_argument("--out", type=Path, default=Path("/tmp/learning_opinion"))
    parser.add_argument("--way", choices=tuple(WAYS), default="words")
    parser.add_argument("--hyper", nargs="*", default=[], help="NAME=VALUE, after the way's own")
    parser.add_argument("--dry", type=int, default=0, help="rows of each part, to check the way on a CPU")
    parser.add_argument("--read", type=Path, default=None, help="what was answered before")
    options = parser.parse_args()
    path = options.read or answer(options)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        found = compare([json.loads(line) for line in lines])
    show(found)
    if options.read:
        merge_figures(
            make_figures(found),
            command="python tests/bench/learning_opinion.py --read tests/bench/results/raw/opinion.jsonl.gz",
            where="NVIDIA H200",
        )


if __name__ == "__main__":
    main()
