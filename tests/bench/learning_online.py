"""One example a step against batches: seconds of training until the same share of exam rows is answered exactly.

Every arm has its own grid of learning rates, a short warm-up and then a nearly constant rate; the best of the grid
counts. Exams are not timed. A row counts when each id of its reference is the likeliest after those before it, which
is what greedy decoding needs to answer it exactly.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import torch
from shammah_trainer.batches import SftRow, tabulate
from shammah_trainer.prefetch import prefetch
from shammah_trainer.sft import SftHyper, evaluate_rows
from shammah_trainer.sft_run import SftRun
from shammah_trainer.student import Student, freeze_lower

FAMILIES = ("spam_sms", "sentiment_reviews", "topic_stackoverflow")
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
_EXAM_ROWS = 300
_EPOCHS = 40  # at most: time or the highest target ends a run
_WARM_STEPS = 20
_FIRST_EXAM = 0.25  # seconds of training; each next one is a fifth later
_GROWTH = 1.2


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to train: rows a step, whether a step is one CUDA graph, and the rates that are tried."""

    name: str
    rows: int
    graph: bool
    rates: tuple[float, ...]


ARMS = (
    Arm("batched", 64, True, (2e-4, 4e-4, 8e-4)),
    Arm("one example a step, CUDA graph", 1, True, (1e-5, 3e-5, 1e-4)),
)
EAGER = Arm("one example a step, eager", 1, False, (3e-5,))


def measure_online(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all arms and compare; `--seconds` bounds the training of each run."""
    from learning_speed import encode, load, read_rows

    rows = encode(read_rows(options.rows, most=options.count, families=FAMILIES), options.base)
    exam, taught = rows[:_EXAM_ROWS], rows[_EXAM_ROWS:]
    student = load(options)
    base = {name: value.clone() for name, value in student.model.state_dict().items()}
    seconds = options.seconds or 40.0
    curves = []
    for arm in ARMS:
        for rate in arm.rates:
            student.model.load_state_dict(base)
            curves.append(_train(student, taught, exam, arm=arm, rate=rate, seconds=seconds))
            _tell(curves[-1])
    student.model.load_state_dict(base)
    eager = _train(student, taught, exam, arm=EAGER, rate=EAGER.rates[0], seconds=min(10.0, seconds))
    _tell(eager)
    comparison = [_compare(target, curves, eager) for target in TARGETS]
    print(json.dumps(comparison, indent=1), flush=True)
    return [{"families": FAMILIES, "comparison": comparison, "curves": [*curves, eager]}]


def _tell(curve: dict[str, Any]) -> None:
    last = curve["points"][-1] if curve["points"] else None
    print(
        f"{curve['arm']}, rate {curve['rate']:g}: {curve['examples_s']:.1f} examples/s, at the end {last}", flush=True
    )


def _train(
    student: Student, taught: list[SftRow], exam: list[SftRow], *, arm: Arm, rate: float, seconds: float
) -> dict[str, Any]:
    """Train until time or the highest target; return the curve of (seconds of training, examples, exact share)."""
    hyper = _choose_hyper(arm, rate, rows=len(taught))
    run = SftRun(student.model, freeze_lower(student, upper_layers=0), tabulate(taught), hyper=hyper)
    points: list[dict[str, float]] = []
    spent, examples, due = 0.0, 0, _FIRST_EXAM
    prepared = 0.0
    student.model.train()
    began = time.monotonic()
    for number, staged in enumerate(prefetch(run.stage, range(len(run.steps)))):
        if number == 1:  # the first step compiles, captures and warms up: told apart
            _wait(run.device)
            prepared, began = time.monotonic() - began, time.monotonic()
        run.step(number, staged)
        examples += sum(len(part) for part in run.steps[number])
        # The device is waited for only where it is examined, and now and then so that the clock is right.
        if number % 8 == 0:
            _wait(run.device)
        now = spent + time.monotonic() - began
        if number == 0 or now < min(due, seconds):
            continue
        _wait(run.device)
        spent += time.monotonic() - began
        exact = evaluate_rows(student, exam, hyper=hyper)[1]
        student.model.train()
        points.append({"seconds": round(spent, 3), "examples": examples, "exact": round(exact, 4)})
        due = max(due * _GROWTH, spent * _GROWTH)
        if exact >= TARGETS[-1] or spent >= seconds:
            break
        began = time.monotonic()
    run.close()
    rate_seen = points[-1]["examples"] / points[-1]["seconds"] if points else 0.0
    return {
        "arm": arm.name,
        "rate": rate,
        "engine": run.engine,
        "prepare_seconds": round(prepared, 2),
        "examples_s": round(rate_seen, 2),
        "points": points,
    }


def _choose_hyper(arm: Arm, rate: float, *, rows: int) -> SftHyper:
    steps = _EPOCHS * -(-rows // arm.rows)
    return SftHyper(
        epochs=_EPOCHS,
        learning_rate=rate,
        batch_tokens=max(256, 80 * arm.rows),
        max_rows_per_batch=arm.rows,
        max_tokens=256,
        warmup_share=_WARM_STEPS / steps,
        compile_mode="off",
        cuda_graph=arm.graph,
    )


def _compare(target: float, curves: list[dict[str, Any]], eager: dict[str, Any]) -> dict[str, Any]:
    """Return the best seconds to a target of each arm, and how many times faster the batched arm is."""
    found: dict[str, Any] = {"exact": target}
    for arm in ARMS:
        reached = []
        for curve in curves:
            hits = [point for point in curve["points"] if curve["arm"] == arm.name and point["exact"] >= target]
            reached += [(hits[0]["seconds"], hits[0]["examples"], curve["rate"])] if hits else []
        found[arm.name] = min(reached) if reached else None
    batched, online = (found[arm.name] for arm in ARMS)
    if batched and online:
        found["batch_vs_online_graph"] = round(online[0] / batched[0], 2)
        if eager["examples_s"]:
            # The same steps as the graph's, at the rate that eager steps were made at.
            found["batch_vs_online_eager"] = round(online[1] / eager["examples_s"] / batched[0], 2)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
