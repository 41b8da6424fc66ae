"""Supervised fine-tuning of the generator: the loop, no I/O.

Only response ids are learned. The body runs once over padded batches; logits are computed only at the positions whose
next id is to be learned, as the vocabulary is by far the widest product.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shammah_trainer.batches import Batch, SftRow, collate, cut_row, plan_batches
from shammah_trainer.problems import DivergedError
from shammah_trainer.student import Network, Student, freeze_lower


@dataclass(frozen=True, slots=True, kw_only=True)
class SftHyper:
    """Hyper-parameters of one fine-tuning; they are written into the manifest.

    `upper_layers` 0 trains everything, n only the upper n blocks (embeddings frozen). `batch_tokens` counts padded
    tokens. `max_tokens` is the longest example; a longer prompt loses its head. `max_seconds` 0 means no limit; a limit
    that strikes makes the result depend on the machine's speed.
    """

    epochs: int = 2
    learning_rate: float = 2e-4
    upper_layers: int = 0
    batch_tokens: int = 1024
    max_rows_per_batch: int = 8
    max_tokens: int = 512
    weight_decay: float = 0.0
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0
    max_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SftResult:
    """Losses in nats per response token (on dev rows when there are any, else on train rows) and what was done."""

    loss_before: float
    loss_after: float
    steps: int
    rows: int
    dropped: int
    tokens: int
    cut_short: bool


Progress = Callable[[float], None]


def fine_tune(
    student: Student,
    train: Sequence[SftRow],
    dev: Sequence[SftRow],
    *,
    hyper: SftHyper,
    pad_id: int,
    progress: Progress = lambda share: None,
) -> SftResult:
    """Train `student` in place.

    `progress` gets the share done, 0 to 1, after every step; an error that it raises ends the training.

    Raises:
        DivergedError: the loss is NaN or infinite.
        InvalidInputError: `upper_layers` out of range.
    """
    torch.manual_seed(hyper.seed)
    device = next(student.model.parameters()).device
    rows = [row for row in (cut_row(item, hyper.max_tokens) for item in train) if row is not None]
    judged = [row for row in (cut_row(item, hyper.max_tokens) for item in dev) if row is not None] or rows
    learning = freeze_lower(student, upper_layers=hyper.upper_layers)
    before = evaluate_loss(student, judged, hyper=hyper, pad_id=pad_id)
    batches = _plan_epochs(rows, hyper)
    steps, cut = _run_steps(student, learning, batches, hyper=hyper, pad_id=pad_id, device=device, progress=progress)
    student.model.zero_grad(set_to_none=True)
    after = evaluate_loss(student, judged, hyper=hyper, pad_id=pad_id)
    if not math.isfinite(after):
        raise DivergedError(f"the loss after training is {after}; a smaller learning rate may help")
    return SftResult(
        loss_before=before,
        loss_after=after,
        steps=steps,
        rows=len(rows),
        dropped=len(train) - len(rows),
        tokens=sum(len(row.ids) for row in rows),
        cut_short=cut,
    )


def evaluate_loss(student: Student, rows: Sequence[SftRow], *, hyper: SftHyper, pad_id: int) -> float:
    """Return the mean teacher-forced loss in nats per response token, each row by its weight; 0 without rows."""
    device = next(student.model.parameters()).device
    total = torch.zeros((), dtype=torch.float64)
    weight = 0.0
    student.model.eval()
    plan = plan_batches(
        rows, batch_tokens=4 * hyper.batch_tokens, max_rows=4 * hyper.max_rows_per_batch, rng=random.Random(0)
    )
    with torch.no_grad():
        for group in plan:
            batch = collate(group, pad_id=pad_id, device=device)
            total += (_token_losses(student.model, batch) * batch.weights).sum().double().cpu()
            weight += float(batch.weights.sum())
    return float(total) / weight if weight else 0.0


def _plan_epochs(rows: Sequence[SftRow], hyper: SftHyper) -> list[list[SftRow]]:
    rng = random.Random(hyper.seed)
    batches: list[list[SftRow]] = []
    for _ in range(hyper.epochs):
        batches += plan_batches(rows, batch_tokens=hyper.batch_tokens, max_rows=hyper.max_rows_per_batch, rng=rng)
    return batches


def _run_steps(
    student: Student,
    learning: list[Any],
    batches: list[list[SftRow]],
    *,
    hyper: SftHyper,
    pad_id: int,
    device: torch.device,
    progress: Progress,
) -> tuple[int, bool]:
    """Make one optimiser step per batch; return the steps made and whether time ran out."""
    optimiser = torch.optim.AdamW(
        learning, lr=hyper.learning_rate, weight_decay=hyper.weight_decay, betas=(0.9, 0.98), fused=True
    )
    student.model.train()
    started = time.monotonic()
    for step, group in enumerate(batches):
        if hyper.max_seconds and time.monotonic() - started > hyper.max_seconds:
            return step, True
        for settings in optimiser.param_groups:
            settings["lr"] = hyper.learning_rate * _rate(step, len(batches), hyper.warmup_share)
        batch = collate(group, pad_id=pad_id, device=device)
        with _precision(device):
            losses = _token_losses(student.model, batch)
        loss = (losses * batch.weights).sum() / batch.weights.sum().clamp_min(1e-9)
        if not bool(torch.isfinite(loss)):
            raise DivergedError(f"the loss at step {step + 1} of {len(batches)} is not finite")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, hyper.clip_norm, error_if_nonfinite=False)
        optimiser.step()
        progress((step + 1) / len(batches))
    return len(batches), False


def _token_losses(model: Network, batch: Batch) -> Tensor:
    """Return the cross-entropy of each learned id, float32 `[N]`."""
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[batch.rows, batch.positions])
    losses: Tensor = torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")
    return losses


def _rate(step: int, steps: int, warmup_share: float) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    warm = max(1, round(steps * warmup_share))
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share))


def _precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    # On a CPU without AMX bf16 is slower than fp32 (measured: 172 against 265 tokens/s).
    if device.type != "cuda":
        return contextlib.nullcontext()
    amp: contextlib.AbstractContextManager[Any] = torch.autocast("cuda", dtype=torch.bfloat16)
    return amp
