"""Arguments of the offline commands, and nothing else."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from shammah_generator.precision import PRECISIONS

from shammah_trainer.offline.study import PARTS
from shammah_trainer.rollouts import LONGEST_RESPONSE


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the chosen command with its options; ends the program on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m shammah_trainer.offline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (text, parts) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--out", type=Path, required=True, help="folder of the study")
        command.add_argument("--threads", type=int, default=os.cpu_count() or 1)
        for part in parts:
            _GROUPS[part](command)
    return parser.parse_args(list(arguments))


def _add_files(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--train", type=Path, nargs="+", required=True, help="workload files to learn from")
    add("--exam", type=Path, nargs="*", default=[], help="workload files that are the exam: never learned from")
    add("--test", type=Path, nargs="*", default=[], help="workload files that are only measured")
    add("--by", choices=("family", "category"), default="family", help="what a category is")
    add("--leave-out", nargs="*", default=[], help="families (or categories) to leave out of training and exam")
    add("--limit-per-family", type=int, default=0, help="rows of a train file at most; 0: all")
    add("--exam-rows", type=int, default=0, help="rows of a category taken out of the train files as further exam")
    add("--train-rows", type=int, default=0, help="train rows in all, evenly over categories; 0: all")
    add("--judged-rows", type=int, default=1000, help="dev rows, and exam rows, of a category at most; 0: all")
    add("--test-rows", type=int, default=0, help="rows of a test file at most; 0: all")
    add("--ingested", type=Path, default=None, help="keep the whole ledger here, or start from the one that is there")
    add("--teach-all", action="store_true", help="dev and exam rows train too: for accuracy alone")
    add("--seed", type=int, default=0)


def _add_training(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--epochs", type=int, default=None)
    add("--hyper", nargs="*", default=[], metavar="NAME=VALUE", help="further hyper-parameters of the fine-tuning")


def _add_base(command: argparse.ArgumentParser) -> None:
    command.add_argument("--base", type=Path, default=None, help="folder of the base models [$SHAMMAH_MODELS_DIR]")


def _add_engine(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--precision", choices=PRECISIONS, default="int8", help="precision that serves (fp16: on CUDA)")
    add("--slots", type=int, default=0, help="rows decoded together; 0: 256 on CUDA, 8 on a CPU")
    add("--context", type=int, default=2048, help="tokens of prompt and response together")
    add("--max-tokens", type=int, default=LONGEST_RESPONSE, help="new tokens of a response at most")
    add("--base-rows", type=int, default=50, help="exam rows of a category that the base model answers too")


def _add_parts(command: argparse.ArgumentParser) -> None:
    command.add_argument("--parts", nargs="+", choices=PARTS[1:], default=list(PARTS[1:]))
    command.add_argument("--share", default="", metavar="I/N", help="every Nth row from the Ith, into an own file")


def _add_rollouts(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--rollouts", type=Path, default=None, help="graded rollouts [OUT/graded.jsonl.gz where it is there]")
    add("--no-compute", action="store_true", help="rollouts that are missing are an error")


def _add_promise(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--alpha", type=float, default=0.05, help="promised most share of bad local answers, per category")
    add("--delta", type=float, default=0.05, help="chance that any promise is wrong")
    add("--validator-seconds", type=float, default=40.0, help="time for the text stage of the validator")
    add("--validator-pairs", type=int, default=800, help="pairs that the text stage learns from, negatives included")
    add("--index-rows", type=int, default=2000, help="train rows of a category that the validator remembers")
    add("--validator-device", default="cpu", help="where the text stage is trained: cpu or cuda")


_GROUPS = {
    "files": _add_files,
    "training": _add_training,
    "base": _add_base,
    "engine": _add_engine,
    "parts": _add_parts,
    "rollouts": _add_rollouts,
    "promise": _add_promise,
}
_COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run": (
        "Everything on this machine: cut, teach, answer, judge, certify, measure.",
        ("files", "training", "base", "engine", "promise"),
    ),
    "prepare": ("Cut workload files into parts: a ledger and a study that can travel.", ("files",)),
    "train": ("Teach the base generator; needs the study and the base generator only.", ("training", "base")),
    "rollouts": (
        "Answer dev, exam and test rows with the taught generator, and some exam rows with the base.",
        ("engine", "parts"),
    ),
    "grade": ("Grade rollouts; unit tests run in a sandbox.", ("base",)),
    "judge": (
        "Train the judges on graded rollouts, certify, publish, measure.",
        ("base", "engine", "rollouts", "promise"),
    ),
}
