"""Study: how many teacher-labelled examples each way of choosing them needs (`active_vs_random`), on a GPU.

For one seed: pool = train rows of a study of all families; as many test rows of each family are the traffic. Arms:
`random` from the pool, `uniform` per category, `active` (budget over categories by learning curves fitted to dev rows,
of the untaught student too; within a category typical, then uncertain queries, a random part). The budget doubles from
250; each point starts from the base model and makes equal steps. One JSON line a point goes to --out.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from learning_arms import NARROW
from learning_rows import Encoded, Learner, Told, draw, encode, ranked_share
from shammah_chassis.learning_curve import Curve, Point, Prospect, allocate
from shammah_generator.chat import END, find_control, load_tokenizer
from shammah_trainer.acquisition import choose_queries
from shammah_trainer.offline.study import read_study
from shammah_trainer.student import load_student

BUDGETS = (250, 500, 1000, 2000, 4000, 8000)
STEPS, TOGETHER, RATE = 300, 64, 3e-4
_UNSURE_ROWS = 400


def main() -> None:
    """Run one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="folder with generator/ and encoder/")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--arms", nargs="+", default=["random", "uniform", "active"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--rows", type=int, default=0, help="exam, dev and test rows a family, for a try")
    parser.add_argument("--pool", type=int, default=0, help="pool rows a family, for a try")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(options.base / "generator" / "tokenizer.json")
    learner = Learner(
        load_student(options.base / "generator", device=device), tokenizer, end=find_control(tokenizer, END)
    )
    study = read_study(options.study)
    few = options.rows
    pool_rows = study.rows("train")
    if options.pool:
        pool_rows = tuple(draw(pool_rows, {}, options.pool))
    pool = encode(pool_rows, tokenizer)
    dev = encode(draw(study.rows("dev"), {}, few or 40), tokenizer)
    test = encode(draw(study.rows("test"), {}, few or 80), tokenizer)
    print(f"pool {len(pool.rows)}, dev {len(dev.rows)}, test {len(test.rows)}", flush=True)
    chooser = Chooser(learner, pool, options.base / "encoder", seed=options.seed, device=device)
    untaught = learner.ask(dev)
    with options.out.open("a", encoding="utf-8") as target:
        for arm in options.arms:
            chooser.begin(untaught)
            for budget in options.budgets:
                started = time.monotonic()
                chosen = chooser.extend(arm, budget)
                learner.reset()
                learner.teach(
                    pool.take(chosen), steps=options.steps, together=TOGETHER, rate=options.rate, seed=options.seed
                )
                judged, told = learner.ask(dev), learner.ask(test)
                chooser.note(judged)
                entry = describe(arm, budget, options.seed, chooser.counts(), told)
                entry["seconds"] = round(time.monotonic() - started, 1)
                target.write(json.dumps(entry) + "\n")
                target.flush()
                print({k: v for k, v in entry.items() if k not in ("counts", "accuracy")}, flush=True)


def describe(arm: str, budget: int, seed: int, counts: dict[str, int], told: Sequence[Told]) -> dict[str, object]:
    """Return one point of a curve; `share` is the share of test rows that can be answered at 95 % precision.

    `share_narrow`: the same of the narrow families alone.
    """
    names = sorted({item.category for item in told})
    return {
        "arm": arm,
        "budget": budget,
        "seed": seed,
        "share": ranked_share(told),
        "share_narrow": ranked_share([item for item in told if item.category in NARROW]),
        "accuracy": {name: float(np.mean([item.good for item in told if item.category == name])) for name in names},
        "counts": counts,
    }


class Chooser:
    """Keeps what was chosen so far in one arm and chooses more."""

    def __init__(self, learner: Learner, pool: Encoded, encoder: Path, *, seed: int, device: torch.device) -> None:
        self._learner, self._pool, self._seed, self._device = learner, pool, seed, device
        self._of: dict[str, list[int]] = {}
        for number, row in enumerate(pool.rows):
            self._of.setdefault(row.category, []).append(number)
        self._vectors = embed(pool, encoder, device=device)
        self._all = random.Random(seed).sample(range(len(pool.rows)), len(pool.rows))
        self._chosen: list[int] = []
        self._points: dict[str, list[Point]] = {}

    def begin(self, untaught: Sequence[Told]) -> None:
        """Start a new arm with nothing chosen; `untaught`: how the base model does on dev rows."""
        self._chosen, self._points = [], {}
        self.note(untaught)

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
        rng = random.Random(self._seed)
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
                chosen += self._choose_of(free[name], count, taught=counts.get(name, 0))
        return chosen

    def _choose_of(self, free: list[int], count: int, *, taught: int) -> list[int]:
        rng = random.Random(f"{self._seed} {taught}")
        sample = rng.sample(free, min(len(free), max(_UNSURE_ROWS, 3 * count)))
        unsure = self._measure_doubt(sample) if taught else None
        picked = choose_queries(self._vectors[sample], count, taught=taught, uncertainty=unsure, seed=self._seed)
        return [sample[number] for number in picked]

    @torch.no_grad()
    def _measure_doubt(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the entropy of the first token of each response, by the student of the round before."""
        doubt = np.zeros(len(numbers), dtype=np.float32)
        order = sorted(range(len(numbers)), key=lambda i: len(self._pool.prompts[numbers[i]]))
        model = self._learner.student.model
        for start in range(0, len(order), 256):
            group = order[start : start + 256]
            prompts = [self._pool.prompts[numbers[i]][-320:] for i in group]
            width = max(map(len, prompts))
            ids = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts], device=self._device)
            last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self._device)
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
                logits = model.lm_head(hidden[torch.arange(len(prompts), device=self._device), last]).float()
            log = torch.log_softmax(logits, -1)
            doubt[group] = (-(log.exp() * log).sum(-1)).cpu().numpy()
        return doubt


@torch.no_grad()
def embed(pool: Encoded, encoder: Path, *, device: torch.device) -> np.ndarray:
    """Return unit vectors `[n, 384]` of the queries by the base encoder (mean of the last states)."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).to(device).eval()
    texts = [row.example.query_text for row in pool.rows]
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), 512):
        group = order[start : start + 512]
        batch = tokenizer([texts[i] for i in group], padding=True, truncation=True, max_length=128, return_tensors="pt")
        batch = batch.to(device)
        states = model(**batch).last_hidden_state * batch["attention_mask"][..., None]
        mean = states.sum(1) / batch["attention_mask"].sum(1, keepdim=True)
        vectors[group] = torch.nn.functional.normalize(mean.float(), dim=-1).cpu().numpy()
    return vectors


if __name__ == "__main__":
    main()
