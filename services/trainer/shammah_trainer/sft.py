"""Supervised fine-tuning of the generator: from rows to a trained student.

Only response ids are learned. Losses before and after, the modes (all weights, upper layers, LoRA), the best weights
by dev loss. One step of it is in `sft_run`; it knows no category and no round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from shammah_trainer.batches import BinLimits, Filled, RowTable, SftRow, cut_row, fill_bin, plan_bins, tabulate
from shammah_trainer.hyper import Resume, SftHyper, SftResult, check_hyper
from shammah_trainer.lora import add_lora, merge_lora
from shammah_trainer.passes import Passes, PassOptions, measure
from shammah_trainer.problems import DivergedError
from shammah_trainer.processes import BY_ITSELF, Processes
from shammah_trainer.sft_run import SftRun
from shammah_trainer.student import Student, freeze_lower

__all__ = ["Resume", "SftHyper", "SftResult", "evaluate_loss", "evaluate_rows", "fine_tune"]

Progress = Callable[[float], None]
_EVAL_ROWS = 4  # an evaluation keeps no activations: its batches may be larger than those of the training


def fine_tune(
    student: Student,
    train: Sequence[SftRow],
    dev: Sequence[SftRow],
    *,
    hyper: SftHyper,
    replay: Sequence[SftRow] = (),
    progress: Progress = lambda share: None,
    resume: Resume | None = None,
    processes: Processes = BY_ITSELF,
) -> SftResult:
    """Train `student` in place.

    `replay`: old rows; each epoch recalls the next of them, at most as many as there are rows in `train`.
    `progress` gets the share done, 0 to 1, now and then and at the end; an error that it raises ends the training.
    `resume`: where the state is saved and taken up. `processes`: those that train with this one or compile for it.

    Raises:
        DivergedError: the loss is NaN or infinite.
        InvalidInputError: a hyper-parameter out of range.
        DeviceMemoryError: a single row is too much for the device.
        UnavailableError: LoRA without peft.
    """
    check_hyper(hyper)
    torch.manual_seed(hyper.seed)
    watch = _Watch()
    table = tabulate(_cut(train, hyper), _cut(replay, hyper))
    judged = tabulate(_cut(dev, hyper))
    dropped = len(train) + len(replay) - len(table)
    judged = judged if len(judged) else table
    wrapped, learning = _choose_learning(student, hyper)
    watch.note("tabulate")
    evaluate = _evaluator(student, judged, hyper)
    run = SftRun(student.model, learning, table, hyper=hyper, evaluate=evaluate, processes=processes)
    try:
        run.prepare()
        watch.note("prepare")
        before = _measure(student, judged, hyper)[0]
        watch.note("loss_before")
        run.may_resume(resume, judged)
        steps, cut, seconds = _make_steps(run, progress)
        watch.note("run")
    finally:
        run.close()
    watch.note("close")
    if wrapped is not None:
        merge_lora(wrapped)
    after = _measure(student, judged, hyper)[0]
    watch.note("loss_after")
    if not math.isfinite(after):
        raise DivergedError(f"the loss after training is {after}; a smaller learning rate may help")
    run.forget()
    made = _Made(before, after, steps, cut, seconds, dropped)
    return _describe(made, run, table, hyper, timings=watch.seconds)


def _make_steps(run: SftRun, progress: Progress) -> tuple[int, bool, float]:
    """Return the steps made, whether they were cut short, and their seconds without what was prepared meanwhile."""
    prepared, started = run.prepare_seconds, time.monotonic()
    steps, cut = run.run(progress)
    run.take_best()
    return steps, cut, time.monotonic() - started - (run.prepare_seconds - prepared)


class _Made(NamedTuple):
    """What one run came to: losses, steps, whether it was cut short, seconds of the steps, rows left out."""

    before: float
    after: float
    steps: int
    cut: bool
    seconds: float
    dropped: int


def _describe(made: _Made, run: SftRun, table: RowTable, hyper: SftHyper, *, timings: dict[str, float]) -> SftResult:
    return SftResult(
        loss_before=made.before,
        loss_after=made.after,
        steps=made.steps,
        rows=len(table),
        dropped=made.dropped,
        tokens=table.tokens,
        cut_short=made.cut,
        seconds=round(made.seconds, 3),
        prepare_seconds=round(run.prepare_seconds, 3),
        engine=run.engine,
        notes=(*_tell_dropped(made.dropped, hyper), *run.notes),
        timings=timings | run.timings,
    )


class _Watch:
    """Seconds by name, each since the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def note(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = round(now - self._last, 3), now


def evaluate_loss(student: Student, rows: Sequence[SftRow], *, hyper: SftHyper) -> float:
    """Return the mean teacher-forced loss in nats per response token, each row by its weight; 0 without rows."""
    return _measure(student, tabulate(rows), hyper)[0]


def evaluate_rows(student: Student, rows: Sequence[SftRow], *, hyper: SftHyper) -> tuple[float, float]:
    """Return the loss, and the share of rows that greedy decoding would answer exactly (all ids the likeliest)."""
    return _measure(student, tabulate(rows), hyper)


def _cut(rows: Sequence[SftRow], hyper: SftHyper) -> list[SftRow]:
    return [row for row in (cut_row(item, hyper.max_tokens) for item in rows) if row is not None]


def _measure(student: Student, table: RowTable, hyper: SftHyper) -> tuple[float, float]:
    if not len(table.learned):
        return 0.0, 0.0
    student.model.eval()
    passes = Passes(student.model, longest=int(table.lengths.max()), shape=None, options=PassOptions())
    limits = BinLimits(_EVAL_ROWS * hyper.batch_tokens, _EVAL_ROWS * hyper.max_rows_per_batch)
    while True:
        try:
            loss, weight, right, rows = measure(passes, _fill_all(table, limits))
            return (loss / weight if weight else 0.0), right / max(1, rows)
        except torch.OutOfMemoryError:
            if limits.tokens < 64:
                raise
            torch.cuda.empty_cache()
            limits = limits.halved()


def _fill_all(table: RowTable, limits: BinLimits) -> list[Filled]:
    # Like lengths together: rows of one length share a kernel on a CPU.
    order = np.argsort(table.lengths, kind="stable")
    return [fill_bin(table, rows, total_weight=1.0, pad_id=0, shape=None) for rows in plan_bins(table, order, limits)]


def _evaluator(student: Student, judged: RowTable, hyper: SftHyper) -> Callable[[], float]:
    return lambda: _measure(student, judged, hyper)[0]


def _choose_learning(student: Student, hyper: SftHyper) -> tuple[Any, list[Any]]:
    if hyper.lora_rank:
        return add_lora(student, rank=hyper.lora_rank, alpha=hyper.lora_alpha)
    return None, freeze_lower(student, upper_layers=hyper.upper_layers)


def _tell_dropped(dropped: int, hyper: SftHyper) -> list[str]:
    if not dropped:
        return []
    return [f"{dropped} rows were left out: their response alone is longer than {hyper.max_tokens} tokens"]
