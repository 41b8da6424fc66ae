"""Fine-tuning by several processes, one a GPU (or on CPU cores), started by torchrun.

On one host with two GPUs:

    python -m torch.distributed.run --nproc-per-node 2 -m shammah_trainer.ddp --model FOLDER --train ROWS --out FOLDER

Each process computes its bins of every step; gradients are added up, so the result is that of one process whose steps
are as many times larger. ROWS is JSON lines `{"query", "response", "weight"?}`; process 0 writes. It knows folders and
processes; the training is `sft`'s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.examples import Message
from shammah_generator.chat import encode_examples, load_tokenizer
from tokenizers import Tokenizer
from torch import distributed as dist

from shammah_trainer.batches import SftRow
from shammah_trainer.hyper import SftHyper, SftResult
from shammah_trainer.processes import Processes
from shammah_trainer.sft import fine_tune
from shammah_trainer.share import Share
from shammah_trainer.student import load_student, save_student

_TOKENIZER = "tokenizer.json"
# What `learn_generator` does before and around `fine_tune`.
_OF_ROUNDS = ("balance", "variants", "word_dropout", "coined", "computed", "copied", "soup")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 0, or 2 with the error's message."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder in Hugging Face format, or a version")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hyper", default="{}", help="JSON object of SftHyper's fields")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    try:
        with join(options.device) as (share, device):
            result = train(options, share, device)
            if share.rank == 0:
                print(json.dumps(asdict(result)), flush=True)
    except ShammahError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr, flush=True)
        return 2
    return 0


@contextlib.contextmanager
def join(wanted: str) -> Iterator[tuple[Share, torch.device]]:
    """Join the processes that torchrun started (its variables RANK, WORLD_SIZE, LOCAL_RANK); alone without it."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    device = torch.device("cpu")
    if gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield Share(), device
        return
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Share(rank, size), device
    finally:
        dist.destroy_process_group()


def train(options: argparse.Namespace, share: Share, device: torch.device) -> SftResult:
    """Run this process' part; process 0 writes weights, config, tokenizer and `result.json`.

    Raises:
        ShammahError: bad rows or hyper-parameters, or what `fine_tune` raises.
    """
    hyper = read_hyper(options.hyper)
    if share.size > 1 and hyper.max_seconds:
        raise InvalidInputError("max_seconds is set; several processes would stop at different steps: allowed: 0")
    student = load_student(options.model, device=device)
    tokenizer = load_tokenizer(options.model / _TOKENIZER)
    rows = read_rows(options.train, tokenizer)
    dev = read_rows(options.dev, tokenizer) if options.dev else []
    result = fine_tune(student, rows, dev, hyper=hyper, processes=Processes(share=share))
    if share.rank == 0:
        options.out.mkdir(parents=True, exist_ok=True)
        save_student(student, options.out)
        (options.out / "config.json").write_text(json.dumps(student.config, indent=1, sort_keys=True) + "\n", "utf-8")
        shutil.copyfile(options.model / _TOKENIZER, options.out / _TOKENIZER)
        (options.out / "result.json").write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    return result


def read_hyper(text: str) -> SftHyper:
    """Return the hyper-parameters that a JSON object names.

    Raises:
        InvalidInputError: no JSON object, an unknown name, or one of what is made of examples before a training.
    """
    try:
        hyper = replace(SftHyper(), **json.loads(text))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"--hyper must be a JSON object of SftHyper's fields: {error}") from error
    for name in _OF_ROUNDS:
        if getattr(hyper, name) != getattr(SftHyper(), name):
            raise InvalidInputError(f"{name} is set; rows are trained on as they are here, by one seed: leave it out")
    return hyper


def read_rows(path: Path, tokenizer: Tokenizer) -> list[SftRow]:
    """Read and encode JSON lines.

    Raises:
        InvalidInputError: a line lacks a field or is no JSON.
    """
    pairs: list[tuple[tuple[Message, ...], str]] = []
    weights: list[float] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row: dict[str, Any] = json.loads(line)
            pairs.append(((Message("user", str(row["query"])),), str(row["response"])))
            weights.append(float(row.get("weight", 1.0)))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{path.name} line {number}: {error}; allowed: query, response, weight") from error
    found = encode_examples(tokenizer, pairs)
    return [SftRow(tuple(ids), tuple(mask), weight) for (ids, mask), weight in zip(found, weights, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
