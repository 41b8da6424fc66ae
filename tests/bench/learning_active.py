"""Study: how many teacher-labelled examples each way of choosing them needs (`active_vs_random`), on GPUs.

For one seed: pool = train rows of a study of all families; as many test rows of each family are the traffic. Arms:
`random` from the pool, `uniform` per category, `active` (budget over categories by learning curves fitted to dev rows,
of the untaught student too; within a category typical, then uncertain queries beyond those taught, a random part). The
budget doubles from 125; each point starts from the base model and makes equal steps. One JSON line a point goes to
`OUT/active.jsonl`, what was answered to `OUT/active_rows.jsonl`.

    python tests/bench/learning_active.py embed --study S --base B --vectors V      # here, on a CPU
    python tests/bench/learning_active.py run --study S --base B --vectors V --out OUT --gpus 2
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_arms import NARROW
from learning_queue import CompileTurn, claim_tasks, has_time, run_workers, write_point
from learning_rows import Learner, Pool, Told, draw, encode, ranked_share, read_tests, share_by_category
from shammah_chassis.acquisition import choose_queries
from shammah_chassis.learning_curve import Curve, Point, Prospect, allocate
from shammah_trainer.batches import BinShape
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.offline.study import read_study

BUDGETS = (125, 250, 500, 1000, 2000, 4000, 8000)
ARMS = ("active", "random", "uniform")
STEPS, TOGETHER, RATE = 300, 64, 3e-4
SHAPE = BinShape(tokens=5120, segments=64 + 10, labels=2560, longest=512)
DEV_ROWS, TEST_ROWS = 40, 150
DIRECTIONS = 160
_UNSURE_ROWS = 400


def main() -> None:
    """Embed the pool, run the study, or (`work`) be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("embed", "run", "work"))
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="folder with generator/ and, to embed, encoder/")
    parser.add_argument("--vectors", type=Path, required=True, help="int8 [n, d], one of each train row of the study")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--queue", type=Path, default=Path("/tmp/active"), help="claims, logs, compiled code")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes on each GPU")
    parser.add_argument("--seconds", type=float, default=500.0, help="no task is begun that would end later")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--uniform-seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="the last of all")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="files of points that need not be made again")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--together", type=int, default=TOGETHER)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--eager", action="store_true", help="nothing is compiled")
    parser.add_argument("--rows", type=int, default=0, help="dev and test rows a family, for a try")
    parser.add_argument("--pool", type=int, default=0, help="pool rows a family, for a try")
    options = parser.parse_args()
    if options.step == "embed":
        write_vectors(options)
    elif options.step == "work":
        work(options)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        sys.exit(
            run_workers(
                [__file__, "work", *sys.argv[2:]],
                gpus=options.gpus,
                workers=options.workers,
                queue=options.queue,
                seconds=options.seconds,
            )
        )


def list_tasks(options: argparse.Namespace) -> list[str]:
    """Return `ARM-SEED` for the active arm, whose points follow from each other, `ARM-SEED-BUDGET` for the others.

    Seed by seed, so that what is there when time is over are whole pairs.
    """
    lines = [json.loads(line) for path in options.known for line in path.read_text("utf-8").splitlines()]
    known = {(line["arm"], line["seed"], line["budget"]) for line in lines}
    budgets: list[int] = options.budgets
    tasks = []
    for seed in options.seeds:
        if not {("active", seed, budget) for budget in budgets} <= known:
            tasks.append(f"active-{seed}")
        tasks += [f"random-{seed}-{budget}" for budget in reversed(budgets) if ("random", seed, budget) not in known]
    pairs = [(seed, budget) for seed in options.uniform_seeds for budget in budgets]
    return tasks + [f"uniform-{seed}-{budget}" for seed, budget in pairs if ("uniform", seed, budget) not in known]


def work(options: argparse.Namespace) -> None:
    """Claim tasks until there are no more, or no more time."""
    bench = Bench(options)
    for task in claim_tasks(list_tasks(options), divisible=True):
        arm, seed, *only = task.split("-")
        chooser = Chooser(bench, seed=int(seed))
        if arm == "active":
            chooser.note(bench.untaught())
        for budget in map(int, only or options.budgets):
            if bench.slowest and not has_time(bench.slowest):
                return
            bench.run_point(chooser, arm, budget, last=bool(only) or budget == options.budgets[-1])


class Bench:
    """What all points of one process share: the student, the pool, the rows that are asked."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        compiled = self.device.type == "cuda" and not options.eager
        self.learner = Learner.load(options.base, device=self.device, shape=SHAPE if compiled else None)
        study = read_study(options.study)
        train, vectors = study.rows("train"), np.load(options.vectors)
        kept = _draw_pool(train, options.pool)
        self.pool = Pool([train[number] for number in kept], self.learner.tokenizer)
        self.vectors = _normalise(vectors[kept].astype(np.float32))
        learnable = {row.category for row in self.pool.rows}
        self.names = sorted(learnable)
        few, tokenizer = options.rows, self.learner.tokenizer
        asked = [row for row in read_tests(study) if row.category in learnable]
        self.dev = encode(draw(study.rows("dev"), {}, few or DEV_ROWS), tokenizer)
        self.test = encode(draw(asked, {}, few or TEST_ROWS), tokenizer)
        self.slowest = 0.0
        self._untaught: list[Told] | None = None
        print(f"pool {len(self.pool.rows)}, dev {len(self.dev.rows)}, test {len(self.test.rows)}", flush=True)
        if compiled:
            with CompileTurn():
                self.learner.teach(self.pool.take(range(256)), steps=16, together=TOGETHER, rate=1e-5, seed=0)
            print("compiled", flush=True)

    def untaught(self) -> list[Told]:
        """Return how the base model does on dev rows."""
        if self._untaught is None:
            self.learner.reset()
            self._untaught = self.learner.ask(self.dev)
        return self._untaught

    def run_point(self, chooser: Chooser, arm: str, budget: int, *, last: bool) -> None:
        """Choose, teach from the base model, ask; `last`: nothing is chosen after it."""
        times = [time.monotonic()]
        chosen = chooser.extend(arm, budget)
        times.append(time.monotonic())
        o = self.options
        self.learner.reset()
        how = {"steps": o.steps, "together": o.together, "rate": o.rate, "seed": chooser.seed}
        taught = self.learner.teach(self.pool.take(chosen), **how)
        times.append(time.monotonic())
        told = self.learner.ask(self.test)
        times.append(time.monotonic())
        if not last:
            chooser.note(self.learner.ask(self.dev))
        times.append(time.monotonic())
        entry = describe(arm, budget, chooser.seed, chooser.counts(), told, self.names)
        entry |= {"seconds": round(times[-1] - times[0], 1), "steps": taught["steps"]}
        entry["parts"] = [round(after - before, 2) for before, after in pairwise(times)]
        write_point(o.out / "active.jsonl", entry)
        rows: dict[str, list[list[float]]] = {name: [] for name in self.names}
        for item in told:
            rows[item.category].append([round(item.confidence, 2), int(item.good)])
        write_point(o.out / "active_rows.jsonl", {"arm": arm, "budget": budget, "seed": chooser.seed, "rows": rows})
        self.slowest = max(self.slowest, times[-1] - times[0])
        print(arm, chooser.seed, budget, round(entry["share"], 4), entry["seconds"], entry["parts"], taught, flush=True)


def describe(
    arm: str, budget: int, seed: int, counts: dict[str, int], told: Sequence[Told], names: Sequence[str]
) -> dict[str, Any]:
    """Return one point of a curve.

    `shares`: of each category, the share of its test rows that can be answered at 95 % precision by a threshold of its
    own. `share`, `share_narrow`: the mean of these over all and over the narrow families. `pooled`, `pooled_narrow`:
    by one threshold for all.
    """
    shares = share_by_category(told, names)
    return {
        "arm": arm,
        "budget": budget,
        "seed": seed,
        "share": float(np.mean(list(shares.values()))),
        "share_narrow": float(np.mean([share for name, share in shares.items() if name in NARROW])),
        "pooled": ranked_share(told),
        "pooled_narrow": ranked_share([item for item in told if item.category in NARROW]),
        "shares": {name: round(share, 4) for name, share in shares.items()},
        "accuracy": {
            name: round(float(np.mean([item.good for item in told if item.category == name])), 4) for name in names
        },
        "tested": len(told) // len(names),
        "counts": counts,
    }


class Chooser:
    """Keeps what was chosen so far in one arm and chooses more."""

    def __init__(self, bench: Bench, *, seed: int) -> None:
        self._bench, self._pool, self.seed = bench, bench.pool, seed
        self._of: dict[str, list[int]] = {}
        for number, row in enumerate(self._pool.rows):
            self._of.setdefault(row.category, []).append(number)
        self._all = random.Random(seed).sample(range(len(self._pool.rows)), len(self._pool.rows))
        self._chosen: list[int] = []
        self._points: dict[str, list[Point]] = {}

    def counts(self) -> dict[str, int]:
        """Return the rows chosen so far by category."""
        return dict(Counter(self._pool.rows[number].category for number in self._chosen))

    def note(self, dev: Sequence[Told]) -> None:
        """Note how the student that learned from what was chosen did on dev rows."""
        counts = self.counts()
        for name in self._of:
            good = [item.good for item in dev if item.category == name]
            self._points.setdefault(name, []).append(Point(counts.get(name, 0), float(sum(good)), float(len(good))))

    def extend(self, arm: str, budget: int) -> list[int]:
        """Return `budget` rows of the pool, those chosen before among them."""
        if arm == "random":
            self._chosen = self._all[:budget]
        elif arm == "uniform":
            self._chosen = self._uniform(budget)
        else:
            self._chosen = self._chosen + self._active(budget - len(self._chosen))
        return self._chosen

    def _uniform(self, budget: int) -> list[int]:
        rng = random.Random(self.seed)
        orders = {name: rng.sample(rows, len(rows)) for name, rows in sorted(self._of.items())}
        chosen: list[int] = []
        turn = 0
        while len(chosen) < budget and any(turn < len(rows) for rows in orders.values()):
            chosen += [rows[turn] for rows in orders.values() if turn < len(rows)][: budget - len(chosen)]
            turn += 1
        return chosen

    def _active(self, more: int) -> list[int]:
        counts, taken = self.counts(), set(self._chosen)
        free = {name: [number for number in rows if number not in taken] for name, rows in self._of.items()}
        prospects = {
            name: Prospect(
                Curve(self._points.get(name, [])), counts.get(name, 0), 1 / len(self._of), left=len(free[name])
            )
            for name in self._of
        }
        chosen: list[int] = []
        for name, count in sorted(allocate(prospects, more).items()):
            if count:
                known = [number for number in self._chosen if self._pool.rows[number].category == name]
                chosen += self._choose_of(free[name], count, known=known)
        return chosen

    def _choose_of(self, free: list[int], count: int, *, known: list[int]) -> list[int]:
        rng = random.Random(f"{self.seed} {len(known)}")
        sample = rng.sample(free, min(len(free), max(_UNSURE_ROWS, 2 * count)))
        vectors = self._bench.vectors
        picked = choose_queries(
            vectors[sample],
            count,
            taught=len(known),
            uncertainty=self._measure_doubt(sample) if known else None,
            seed=self.seed,
            known=vectors[known],
        )
        return [sample[number] for number in picked]

    @torch.no_grad()
    def _measure_doubt(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the entropy of the first token of each response, by the student of the round before."""
        doubt = np.zeros(len(numbers), dtype=np.float32)
        device, model = self._bench.device, self._bench.learner.student.model
        prompts = [self._pool.prompt(number)[-320:] for number in numbers]
        order = sorted(range(len(numbers)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), 256):
            group = order[start : start + 256]
            own = [prompts[i] for i in group]
            width = max(map(len, own))
            ids = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in own], device=device)
            last = torch.tensor([len(prompt) - 1 for prompt in own], device=device)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
                logits = model.lm_head(hidden[torch.arange(len(own), device=device), last]).float()
            log = torch.log_softmax(logits, -1)
            doubt[group] = (-(log.exp() * log).sum(-1)).cpu().numpy()
        return doubt


def _draw_pool(train: Sequence[LedgerRow], most: int) -> list[int]:
    """Return the numbers of all rows, or for a try of a few of each family."""
    if not most:
        return list(range(len(train)))
    drawn = {row.id for row in draw(train, {}, most)}
    return [number for number, row in enumerate(train) if row.id in drawn]


def _normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def write_vectors(options: argparse.Namespace) -> None:
    """Embed the queries of the pool by the base encoder; `DIRECTIONS` of it in int8 are enough to tell clusters."""
    vectors = embed([row.example.query_text for row in read_study(options.study).rows("train")], options.base)
    np.save(options.vectors, shorten(vectors))


def shorten(vectors: np.ndarray) -> np.ndarray:
    """Return int8 `[n, DIRECTIONS]`: the principal directions of unit vectors, whose cosines stay."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    short = vectors @ directions[:, -DIRECTIONS:]
    return np.round(127 * short / np.abs(short).max(axis=1, keepdims=True)).astype(np.int8)


@torch.no_grad()
def embed(texts: Sequence[str], base: Path) -> np.ndarray:
    """Return unit vectors `[n, 384]` of texts (mean of the last states)."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base / "encoder")
    model = AutoModel.from_pretrained(base / "encoder").eval()
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), 64):
        group = order[start : start + 64]
        batch = tokenizer([texts[i] for i in group], padding=True, truncation=True, max_length=128, return_tensors="pt")
        states = model(**batch).last_hidden_state * batch["attention_mask"][..., None]
        mean = states.sum(1) / batch["attention_mask"].sum(1, keepdim=True)
        vectors[group] = torch.nn.functional.normalize(mean.float(), dim=-1).numpy()
    return vectors


if __name__ == "__main__":
    main()
