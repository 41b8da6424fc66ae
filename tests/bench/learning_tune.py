"""Tries ways to teach the generator on one arm's train rows, and ranks them by its dev rows; no test or exam row.

    python tests/bench/learning_tune.py --bundle .bench/learning.tar --base FOLDER --out OUT.json --ways even half

Each way starts from the base weights. Answers are greedy (`learning_greedy`); `share` is what could be answered at 95 %
precision with one threshold a family, picked on the same dev rows: it compares ways, it promises nothing. `--soups`
answers with the mean of the weights of ways that were run. On several GPUs start it once for each of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("services/trainer", "services/generator", "services/chassis", "protos/gen", "tests/bench")
sys.path[:0] = [str(ROOT / part) for part in _PARTS]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from learning_arms import NARROW  # noqa: E402
from learning_greedy import Greedy  # noqa: E402
from learning_rows import Told, ranked_share  # noqa: E402
from shammah_chassis.grading import grade  # noqa: E402
from shammah_chassis.text import normalise_query  # noqa: E402
from shammah_generator.chat import END, encode_prompt, encode_text, find_control, load_tokenizer  # noqa: E402
from shammah_trainer.ledger import LedgerRow  # noqa: E402
from shammah_trainer.offline.study import read_study  # noqa: E402
from shammah_trainer.offline.teach import STUDY_HYPER, change_hyper  # noqa: E402
from shammah_trainer.sft import SftHyper, evaluate_rows, fine_tune  # noqa: E402
from shammah_trainer.student import Student, load_student  # noqa: E402
from shammah_trainer.training_rows import balance_rows, encode_rows, make_rows, vary_rows  # noqa: E402

WORDS = ("epochs=5", "balance=0.5", "variants=4", "word_dropout=0.1")
COMPUTED = (*WORDS, "computed=14", "max_rows_per_batch=224")
COPIED = (*COMPUTED, "coined=0.5", "copied=2")
WAYS: dict[str, tuple[str, ...]] = {
    "three": (),
    "plain": ("epochs=5",),
    "half": ("epochs=5", "balance=0.5"),
    "even": ("epochs=5", "balance=1"),
    "half_slow": ("epochs=5", "balance=0.5", "learning_rate=0.0002", "weight_decay=0.1"),
    "half_tail": ("epochs=5", "balance=0.5", "averaging=tail", "tail_share=0.3"),
    "half_again": ("epochs=5", "balance=0.5", "seed=1"),
    "varied": ("epochs=5", "balance=0.5", "variants=4"),
    "varied_again": ("epochs=5", "balance=0.5", "variants=4", "seed=1"),
    "varied_tail": ("epochs=5", "balance=0.5", "variants=4", "averaging=tail", "tail_share=0.3"),
    "varied_small": ("epochs=5", "balance=0.5", "variants=4", "max_rows_per_batch=64", "learning_rate=0.0003"),
    "words": WORDS,
    "words_again": (*WORDS, "seed=1"),
    "words_small": (*WORDS, "max_rows_per_batch=64", "learning_rate=0.0003"),
    "words_slow": (*WORDS, "learning_rate=0.0002"),
    "computed": (*WORDS, "computed=8"),
    "computed_more": (*WORDS, "computed=24"),
    "computed_large": (*WORDS, "computed=24", "max_rows_per_batch=320"),
    "computed_most": (*WORDS, "computed=40", "max_rows_per_batch=384", "learning_rate=0.0005"),
    "computed_14": COMPUTED,
    "coined_half": (*COMPUTED, "coined=0.5"),
    "copied": COPIED,
    "coined_all": (*COMPUTED, "coined=1"),
    "coined_again": (*COMPUTED, "coined=0.5", "seed=1"),
    "coined_drop": (*COMPUTED, "coined=0.5", "word_dropout=0.2"),
    "words_long": ("epochs=8", "balance=0.5", "variants=7", "word_dropout=0.1"),
}
LIMIT = 320
"""New tokens of a response at most, as where rollouts are made."""
Weights = dict[str, torch.Tensor]


class Tuner:
    """One base student, the rows of a study, and what became of each way."""

    def __init__(self, study: Path, base: Path, *, device: str, rows: int = 0, leave_out: Sequence[str] = ()) -> None:
        """`rows`: of each part at most, to check the way; 0: all. Families to `leave_out` are taught, and not asked."""
        found = read_study(study)
        self.tokenizer = load_tokenizer(base / "tokenizer.json")
        self.rows, self.judges = found.plan.train[: rows or None], found.plan.judges
        asked = [*self.judges, *found.rows("test")]
        self.taken = {normalise_query(row.example.query_text) for row in asked}
        self.dev = [
            row for row in found.plan.dev if row.example.grader != "unit_tests" and row.category not in leave_out
        ]
        self.dev = self.dev[: rows or None]
        self.dev_sft = encode_rows(self.dev, self.tokenizer)
        self.student: Student = load_student(base, device=torch.device(device))
        self.base = self.copy_weights()
        on_gpu = device.startswith("cuda")
        end = find_control(self.tokenizer, END)
        self.greedy = Greedy(self.student.model, end=end, rows=512 if on_gpu else 8, places=1024 if on_gpu else 640)
        self.prompts = [encode_prompt(self.tokenizer, row.example.query) for row in self.dev]
        self.limits = find_limits(self.dev, self.tokenizer, LIMIT if rows == 0 else 8)

    def copy_weights(self) -> Weights:
        """Return the weights of the student, off the GPU."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.student.model.state_dict().items()}

    @torch.no_grad()
    def put_weights(self, weights: Weights) -> None:
        """Overwrite the weights of the student."""
        for name, tensor in self.student.model.state_dict().items():
            tensor.copy_(weights[name])

    def teach(self, hyper: SftHyper) -> float:
        """Teach from the base weights; return the seconds."""
        self.put_weights(self.base)
        started = time.monotonic()
        varied = vary_rows(
            self.rows,
            count=hyper.variants,
            word_dropout=hyper.word_dropout,
            coined=hyper.coined,
            seed=hyper.seed,
            judges=self.judges,
        )
        further = make_rows(self.rows, hyper, taken=self.taken)
        rows = encode_rows(
            [*self.rows, *(made.row for made in further)],
            self.tokenizer,
            variants=[*varied, *(made.variants for made in further)],
        )
        rows = balance_rows(rows, hyper.balance)
        self.student.model.train()
        fine_tune(self.student, rows, self.dev_sft[:64], hyper=hyper)
        return time.monotonic() - started

    def measure(self, hyper: SftHyper) -> dict[str, Any]:
        """Answer all dev rows and say how well."""
        started = time.monotonic()
        self.student.model.eval()
        loss, exact = evaluate_rows(self.student, self.dev_sft, hyper=hyper)
        self.greedy.load(self.student.model)
        told: dict[str, list[Told]] = {}
        for row, reply in zip(self.dev, self.greedy.answer(self.prompts, self.limits), strict=True):
            text = self.tokenizer.decode(list(reply.ids)) if reply.whole else ""
            good = reply.whole and bool(grade(text, row.example).good)
            told.setdefault(row.category, []).append(Told(row.category, reply.confidence, good))
        accuracy = {name: float(np.mean([item.good for item in own])) for name, own in sorted(told.items())}
        share = {name: ranked_share(own) for name, own in sorted(told.items())}
        return {
            "dev_loss": round(loss, 4),
            "exact": round(exact, 4),
            **summarise("accuracy", accuracy),
            **summarise("share", share),
            "ask_seconds": round(time.monotonic() - started, 1),
            "families": {name: (round(accuracy[name], 3), round(share[name], 3)) for name in accuracy},
        }


def find_limits(rows: Sequence[LedgerRow], tokenizer: Any, longest: int) -> list[int]:
    """Return the tokens that each row may take: 1.5 times the longest of its family + 4, at most `longest`."""
    most: dict[str, int] = {}
    for row in rows:
        most[row.category] = max(most.get(row.category, 0), len(encode_text(tokenizer, row.example.response)))
    return [min(longest, 4 + 3 * most[row.category] // 2) for row in rows]


def summarise(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over all families and over the narrow ones."""
    narrow = [value for family, value in values.items() if family in NARROW]
    return {
        name: round(float(np.mean(list(values.values()))), 4),
        f"{name}_narrow": round(float(np.mean(narrow)), 4) if narrow else 0.0,
    }


def mean_weights(several: Sequence[Weights]) -> Weights:
    """Return the plain mean of the weights of several students."""
    return {name: sum((w[name].float() for w in several), start=torch.zeros(())) / len(several) for name in several[0]}


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print a line of the table, and the families below it."""
    keys = ("dev_loss", "exact", "accuracy", "accuracy_narrow", "share", "share_narrow")
    print(f"{name:28}", *(f"{key} {found[key]:.4f}" for key in keys), f"{found['teach_seconds']:.0f} s", flush=True)
    print("   ", " ".join(f"{family}={a:.3f}/{s:.3f}" for family, (a, s) in found["families"].items()), flush=True)


def main() -> None:
    """Run the ways and soups; write and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="what `learning.py pack` wrote")
    parser.add_argument("--arm", default="all")
    parser.add_argument("--base", type=Path, required=True, help="folder with the base generator in generator/")
    parser.add_argument("--work", type=Path, default=Path("/tmp/learning_tune"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--soups", nargs="*", default=[], metavar="WAY+WAY", help="means of weights, e.g. half+even")
    parser.add_argument("--hyper", nargs="*", default=[], help="NAME=VALUE for every way, after its own")
    parser.add_argument("--dry", type=int, default=0, help="rows of each part, to check the way on a CPU")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="FAMILY", help="are taught, and not asked")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(options.bundle) as bundle:
        bundle.extract(f"{options.arm}/study.jsonl.gz", options.work, filter="data")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    study = options.work / options.arm / "study.jsonl.gz"
    tuner = Tuner(study, options.base / "generator", device=device, rows=options.dry, leave_out=options.leave_out)
    print(f"{len(tuner.rows)} train rows, {len(tuner.dev)} dev rows, {device}", flush=True)
    found: dict[str, Any] = {}
    kept: dict[str, Weights] = {}

    def note(name: str, hyper: SftHyper, seconds: float) -> None:
        found[name] = {"hyper": WAYS.get(name, ()), "teach_seconds": round(seconds, 1), **tuner.measure(hyper)}
        show(name, found[name])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")

    for name in options.ways:
        hyper = change_hyper(STUDY_HYPER, [*WAYS[name], *options.hyper])
        seconds = tuner.teach(hyper)
        note(name, hyper, seconds)
        if any(name in soup.split("+") for soup in options.soups):
            kept[name] = tuner.copy_weights()
    for soup in options.soups:
        tuner.put_weights(mean_weights([kept[name] for name in soup.split("+")]))
        note(soup, STUDY_HYPER, 0.0)


if __name__ == "__main__":
    main()
