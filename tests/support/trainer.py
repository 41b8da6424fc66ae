"""Small learnable tasks, tiny base models and an in-process trainer for tests. Nothing is downloaded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from shammah_chassis.examples import Example, Message, Provenance, pack_envelopes
from shammah_trainer.base_models import BaseModels
from shammah_trainer.config import TrainerSettings
from shammah_trainer.engine import TrainerEngine
from shammah_trainer.jobs import TrainJob
from support.tiny import make_tiny_encoder, make_tiny_generator

_THINGS = ("lamp", "fan", "door", "gate", "pump", "heater", "radio", "oven", "blind", "siren", "valve", "screen")
_PLACES = ("kitchen", "hall", "cellar", "garden", "attic", "garage", "office", "porch", "studio", "loft")
_WAYS = ("please", "kindly", "now", "soon", "again", "later", "today", "quickly")


def make_example(
    query: str,
    response: str,
    *,
    category: str = "switch",
    grader: str = "label",
    origin: str = "dataset",
    part_hint: str = "",
    **more: object,
) -> Example:
    """Return an example with what tests vary."""
    provenance = Provenance(origin=origin, licence="CC0", source="made for tests")
    fields: dict[str, object] = {
        "query": (Message("user", query),),
        "response": response,
        "category": category,
        "grader": grader,
        "provenance": provenance,
        "part_hint": part_hint,
    }
    return Example(**{**fields, **more})  # type: ignore[arg-type]


def make_switch_rows(count: int, *, seed: int = 0, part_hint: str = "", category: str = "switch") -> list[Example]:
    """Return `count` different queries that a tiny model learns in seconds: the first word decides the answer.

    Rows of different seeds are different queries: the seed is the parity of the number at the end.
    """
    rng = random.Random(seed)
    rows: dict[str, Example] = {}
    while len(rows) < count:
        on = rng.random() < 0.5
        number = 2 * rng.randrange(5000) + seed % 2
        words = (rng.choice(_WAYS), rng.choice(_PLACES), rng.choice(_THINGS), str(number))
        query = f"{'start' if on else 'stop'} {' '.join(words)}"
        rows[query] = make_example(query, "yes" if on else "no", category=category, part_hint=part_hint)
    return list(rows.values())


def make_base_models(folder: Path) -> BaseModels:
    """Write tiny random-weight base models."""
    return BaseModels(
        generator=make_tiny_generator(folder / "generator"), encoder=make_tiny_encoder(folder / "encoder")
    )


def make_settings(folder: Path, nats_url: str, **changes: object) -> TrainerSettings:
    """Return settings of a trainer that learns a tiny task in seconds; `folder/base` must hold the base models."""
    values: dict[str, object] = {
        "data_dir": folder / "trainer",
        "store_url": f"dir:{folder / 'store'}",
        "nats_url": nats_url,
        "models_dir": folder / "base",
        "auto_train": False,
        "alpha": 0.2,
        "delta": 0.2,
        "threads": 1,
        "device": "cpu",
        "sft_epochs": 8,
        "sft_learning_rate": 5e-3,
        "sft_batch_tokens": 512,
        "sft_batch_rows": 16,
        "validator_seconds": 3.0,
        "context": 128,
        "lease_seconds": 5.0,
    }
    return TrainerSettings(**{**values, **changes})  # type: ignore[arg-type]


async def start_engine(settings: TrainerSettings) -> TrainerEngine:
    """Start a trainer and wait until it is ready."""
    engine = TrainerEngine(settings)
    engine.start()
    await wait_until(lambda: engine.ready, seconds=180)
    return engine


async def publish_examples(bus: object, examples: Sequence[Example]) -> int:
    """Publish examples to the log and return the last sequence."""
    sequence = 0
    for envelope in pack_envelopes(examples):
        sequence = (await bus.publish_envelope("test", envelope)).sequence  # type: ignore[attr-defined]
    return sequence


async def wait_for_sequence(engine: TrainerEngine, sequence: int) -> None:
    """Wait until the ledger holds the log up to `sequence`."""
    for _ in range(3600):
        if (await engine.read_status()).ledger_sequence >= sequence:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the ledger did not reach {sequence} in 180 s")


async def run_round(engine: TrainerEngine) -> TrainJob:
    """Run one round to its end."""
    job = await engine.train("test")
    for _ in range(24):
        job = await engine.get_job(job.id, 25.0)
        if job.ended.is_set():
            return job
    raise AssertionError(f"the round did not end: {job.stage}")


async def wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Poll a condition with a bound."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s")
