"""Study: what a student forgets when it learns six families one after another (`forgetting_points`), on GPUs.

For each order and seed: one after another with replay (at most 1:1), without, and jointly. Accuracy is greedy and exact
by teacher forcing on held-out rows (listed test rows, then exam rows of the study): a row is right when each of its ids
is the likeliest one. One JSON line a run goes to `OUT/forget.jsonl`.

    python tests/bench/learning_forget.py run --study S --base B --out OUT --gpus 2 --orders 3 4 5 --seeds 100 \
        --tasks replay:kept=0.3 replay:anchor=50
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from learning_queue import CompileTurn, claim_tasks, run_workers, write_point
from learning_rows import Encoded, Learner, draw, encode, read_tests
from shammah_trainer.batches import BinShape, SftRow
from shammah_trainer.hyper import SftHyper
from shammah_trainer.offline.study import Study, read_study
from shammah_trainer.sft import evaluate_rows

FAMILIES = (
    *("spam_sms", "sentiment_reviews", "intent_clinc150"),
    *("extract_restaurant8k", "tool_call_snips", "topic_stackoverflow"),
)
ROWS, TEST_ROWS, DEV_ROWS, STEPS, TOGETHER, RATE = 600, 600, 40, 80, 32, 2e-4
SHAPE = BinShape(tokens=2560, segments=32 + 5, labels=1280, longest=512)
Matrix = list[list[float | None]]


def main() -> None:
    """Run the study, or (`work`) be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "work"))
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queue", type=Path, default=Path("/tmp/forget"), help="claims, logs, compiled code")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes on each GPU")
    parser.add_argument("--seconds", type=float, default=300.0, help="no run is begun that would end later")
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=["replay", "none", "joint"], help="WAY or WAY:NAME=VALUE,...")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--eager", action="store_true", help="nothing is compiled")
    options = parser.parse_args()
    if options.step == "work":
        work(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    failed = run_workers(
        [__file__, "work", *sys.argv[2:]],
        gpus=options.gpus,
        workers=options.workers,
        queue=options.queue,
        seconds=options.seconds,
    )
    sys.exit(failed)


def work(options: argparse.Namespace) -> None:
    """Claim runs until there are no more, or no more time."""
    bench = Bench(options)
    tasks = {
        f"{number}-{order}-{seed}": (how, order, seed)
        for number, how in enumerate(options.tasks)
        for seed in options.seeds
        for order in options.orders
    }
    for task in claim_tasks(list(tasks)):
        how, order, seed = tasks[task]
        way, _, rest = how.partition(":")
        more = {name: json.loads(value) for name, _, value in (part.partition("=") for part in rest.split(",") if part)}
        bench.run(way, order, seed, more)


class Bench:
    """What all runs of one process share: the student and the rows of each family."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        compiled = device.type == "cuda" and not options.eager
        self.learner = Learner.load(options.base, device=device, shape=SHAPE if compiled else None)
        study, tokenizer = read_study(options.study), self.learner.tokenizer
        self.train = {name: encode(_draw_of(study, name, options.rows, "train"), tokenizer) for name in FAMILIES}
        most = options.test_rows
        self.test = {name: encode(_draw_of(study, name, most, "test", "exam"), tokenizer) for name in FAMILIES}
        self.dev = {name: encode(_draw_of(study, name, min(DEV_ROWS, most), "dev"), tokenizer) for name in FAMILIES}
        print({name: (len(self.train[name].rows), len(self.test[name].rows)) for name in FAMILIES}, flush=True)
        if compiled:
            with CompileTurn():
                rows = self.train[FAMILIES[0]].sft
                self.learner.teach(rows, steps=16, together=TOGETHER, rate=1e-5, seed=0)
            print("compiled", flush=True)

    def run(self, way: str, order: int, seed: int, more: Mapping[str, Any]) -> None:
        """Make one run and write it down. `more`: hyper-parameters, and `replay_weight` of old rows."""
        started = time.monotonic()
        names = random.Random(order).sample(FAMILIES, len(FAMILIES))
        self.learner.reset()
        matrix = self._join(names, seed, more) if way == "joint" else self._follow(way, names, seed, more)
        o = self.options
        entry = {"order": names, "seed": seed, "way": way, "matrix": matrix, "loss": lost(matrix, way)}
        entry |= {"steps": o.steps, "rate": o.rate, "more": dict(more), "orders": order}
        entry |= {"tested": {name: len(self.test[name].rows) for name in names}}
        entry |= {"seconds": round(time.monotonic() - started, 1)}
        write_point(o.out / "forget.jsonl", entry)
        end = [value for value in matrix[-1] if value is not None]
        print(way, order, seed, dict(more), entry["loss"], sum(end) / len(end), entry["seconds"], flush=True)

    def _join(self, names: Sequence[str], seed: int, more: Mapping[str, Any]) -> Matrix:
        rows = [row for name in names for row in self.train[name].sft]
        self._teach(rows, steps=self.options.steps * len(names), seed=seed, **more)
        return [[accuracy(self.learner, self.test[name]) for name in names]]

    def _follow(self, way: str, names: Sequence[str], seed: int, more: Mapping[str, Any]) -> Matrix:
        """Return the accuracy of each family (in the order of `names`) after each stage; None: not yet taught."""
        others = dict(more)
        weight = float(others.pop("replay_weight", 1.0))
        matrix: Matrix = []
        for stage, name in enumerate(names):
            # All earlier rows: each pass over the new ones recalls as many others of them, as a round does.
            old = [row for before in names[:stage] for row in self.train[before].sft] if way == "replay" else []
            old = [SftRow(row.ids, row.mask, weight) for row in old]
            random.Random(seed + stage).shuffle(old)
            # Measured before and after each training, and otherwise only where a share is chosen by it.
            asked = names[: stage + 1] if "kept_checks" in more else ()
            dev = [row for known in asked for row in self.dev[known].sft]
            self._teach(
                self.train[name].sft, steps=self.options.steps, seed=seed + stage, replay=old, dev=dev, **others
            )
            known = [accuracy(self.learner, self.test[other]) for other in names[: stage + 1]]
            matrix.append([*known, *[None] * (len(names) - stage - 1)])
        return matrix

    def _teach(self, rows: Sequence[SftRow], **how: Any) -> None:
        self.learner.teach(rows, together=TOGETHER, rate=how.pop("rate", self.options.rate), **how)


def _draw_of(study: Study, name: str, most: int, *parts: str) -> list[Any]:
    """Return at most so many rows of a family, those of the first part before those of the next."""
    found: list[Any] = []
    for part in parts:
        rows = read_tests(study) if part == "test" else study.rows(part)
        found += draw([row for row in rows if row.category == name], {}, most - len(found))
    return found


def accuracy(learner: Learner, rows: Encoded) -> float:
    """Return the share of rows that greedy decoding would answer word for word."""
    hyper = SftHyper(batch_tokens=16_384, max_rows_per_batch=256, max_tokens=320)
    return evaluate_rows(learner.student, rows.sft, hyper=hyper)[1]


def lost(matrix: Matrix, way: str) -> float | None:
    """Return the mean loss of the earlier families in points: right after its own stage minus at the end."""
    if way == "joint":
        return None
    drops = [100 * ((matrix[stage][stage] or 0.0) - (matrix[-1][stage] or 0.0)) for stage in range(len(matrix) - 1)]
    return sum(drops) / len(drops)


if __name__ == "__main__":
    main()
