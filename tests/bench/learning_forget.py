"""Study: what a student forgets when it learns six families one after another (`forgetting_points`), on a GPU.

For each order and seed: sequentially with replay (at most 1:1), without, and jointly. Accuracy is greedy and exact by
teacher forcing: a row is right when each of its ids is the likeliest one. One JSON line a run goes to --out.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from learning_rows import Encoded, Learner, draw, encode
from shammah_generator.chat import END, find_control, load_tokenizer
from shammah_trainer.hyper import Averaging, SftHyper
from shammah_trainer.offline.study import read_study
from shammah_trainer.sft import evaluate_rows
from shammah_trainer.student import load_student

FAMILIES = (
    *("spam_sms", "sentiment_reviews", "intent_clinc150"),
    *("extract_restaurant8k", "tool_call_snips", "topic_stackoverflow"),
)
ROWS, TEST_ROWS, STEPS, TOGETHER, RATE = 600, 150, 80, 32, 2e-4
AVERAGING: Averaging = "off"


def main() -> None:
    """Run the orders and seeds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--averaging", choices=("off", "ema", "tail"), default=AVERAGING)
    parser.add_argument("--ways", nargs="+", default=["replay", "none", "joint"])
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(options.base / "generator" / "tokenizer.json")
    learner = Learner(
        load_student(options.base / "generator", device=device), tokenizer, end=find_control(tokenizer, END)
    )
    study = read_study(options.study)
    train = {
        name: encode(draw([r for r in study.rows("train") if r.category == name], {}, options.rows), tokenizer)
        for name in FAMILIES
    }
    test = {
        name: encode(draw([r for r in study.rows("test") if r.category == name], {}, TEST_ROWS), tokenizer)
        for name in FAMILIES
    }
    with options.out.open("a", encoding="utf-8") as target:
        for order in options.orders:
            names = random.Random(order).sample(FAMILIES, len(FAMILIES))
            for seed in options.seeds:
                for way in options.ways:
                    started = time.monotonic()
                    how = {"steps": options.steps, "rate": options.rate, "averaging": options.averaging}
                    matrix = run(learner, names, train, test, way=way, seed=seed, **how)
                    entry = {
                        "order": names,
                        "seed": seed,
                        "way": way,
                        "matrix": matrix,
                        "loss": lost(matrix, way),
                        **how,
                    }
                    entry["seconds"] = round(time.monotonic() - started, 1)
                    target.write(json.dumps(entry) + "\n")
                    target.flush()
                    print(order, seed, way, entry["loss"], entry["seconds"], flush=True)


def run(
    learner: Learner,
    names: Sequence[str],
    train: dict[str, Encoded],
    test: dict[str, Encoded],
    *,
    way: str,
    seed: int,
    steps: int,
    rate: float,
    averaging: Averaging,
) -> list[list[float]]:
    """Return the accuracy of each family (in the order of `names`) after each stage."""
    learner.reset()
    matrix = []
    how: dict[str, Any] = {"together": TOGETHER, "rate": rate, "averaging": averaging}
    if way == "joint":
        rows = [row for name in names for row in train[name].sft]
        learner.teach(rows, steps=steps * len(names), seed=seed, **how)
        return [[accuracy(learner, test[name]) for name in names]]
    for stage, name in enumerate(names):
        # All earlier rows: each pass over the new ones recalls as many others of them, as a round does.
        old = [row for before in names[:stage] for row in train[before].sft] if way == "replay" else []
        random.Random(seed + stage).shuffle(old)
        learner.teach(train[name].sft, steps=steps, seed=seed + stage, replay=old, **how)
        matrix.append([accuracy(learner, test[other]) for other in names])
    return matrix


def accuracy(learner: Learner, rows: Encoded) -> float:
    """Return the share of rows that greedy decoding would answer word for word."""
    hyper = SftHyper(batch_tokens=16_384, max_rows_per_batch=256, max_tokens=320)
    return evaluate_rows(learner.student, rows.sft, hyper=hyper)[1]


def lost(matrix: list[list[float]], way: str) -> float | None:
    """Return the mean loss of the earlier families in points: right after its own stage minus at the end."""
    if way == "joint":
        return None
    stages = len(matrix)
    drops = [100 * (matrix[stage][stage] - matrix[-1][stage]) for stage in range(stages - 1)]
    return sum(drops) / len(drops)


if __name__ == "__main__":
    main()
