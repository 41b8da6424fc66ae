"""Where the time of a training step goes: torch's profiler over a few steps of a real run."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from shammah_trainer.batches import SftRow, cut_row, tabulate
from shammah_trainer.sft import SftHyper
from shammah_trainer.sft_run import SftRun
from shammah_trainer.student import Student, freeze_lower
from torch.profiler import ProfilerActivity, profile

_WARM, _SEEN = 4, 6
_COMPILE_SECONDS = 90.0


def profile_steps(student: Student, rows: list[SftRow], hyper: SftHyper, out: Path | None) -> None:
    """Print the operations that take most of the time, and the wall time of a step with and without the profiler."""
    table = tabulate([row for row in (cut_row(item, hyper.max_tokens) for item in rows) if row is not None])
    learning = freeze_lower(student, upper_layers=hyper.upper_layers)
    run = SftRun(student.model, learning, table, hyper=hyper)
    student.model.train()
    gpu = run.device.type == "cuda"
    # A few bins again and again: what is in them does not matter here.
    staged = [run.stage(n) for n in range(min(_WARM, len(run.steps)))]

    def step(number: int) -> None:
        run.step(number % len(staged), staged[number % len(staged)])

    for number in range(_WARM):
        step(number)
    # Compiled blocks come when they are ready, and this is to be of them.
    deadline = time.monotonic() + _COMPILE_SECONDS
    while gpu and hyper.compile_mode != "off" and "compiled" not in run.engine and time.monotonic() < deadline:
        step(0)
    _wait(gpu)
    print(f"engine: {run.engine}; prepared in {run.prepare_seconds:.1f} s; notes: {run.notes}", flush=True)
    began = time.monotonic()
    for number in range(_SEEN):
        step(number)
    launched = time.monotonic() - began
    _wait(gpu)
    print(
        f"a step: {1e3 * (time.monotonic() - began) / _SEEN:.2f} ms, of which launching {1e3 * launched / _SEEN:.2f} ms"
    )
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds) as seen:
        for number in range(_SEEN):
            step(number)
        _wait(gpu)
    order = "self_cuda_time_total" if gpu else "self_cpu_time_total"
    text = seen.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=70)
    print(text, flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    run.close()


def _wait(gpu: bool) -> None:
    if gpu:
        torch.cuda.synchronize()
