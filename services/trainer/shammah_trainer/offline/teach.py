"""Steps 1 to 3 of a round on a study: fine-tune the base generator, export, check, and say how fast it went.

It needs the study and a base generator, no ledger and no encoder. What it leaves is a version folder and `train.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.manifest import MANIFEST_NAME, load_json, read_manifest
from shammah_chassis.text import normalise_query

from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.fill_ahead import compiles_behind, fill_ahead, guess_tokens, read_size
from shammah_trainer.learn_generator import GeneratorTask, LearnedGenerator, learn_generator
from shammah_trainer.offline.study import STUDY_NAME, Study
from shammah_trainer.phases import Phases, Report
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.publishing import Version
from shammah_trainer.release_zero import build_base_generator
from shammah_trainer.round import PHASES
from shammah_trainer.sft import SftHyper, SftResult

GENERATOR_NAME = "generator"
BASE_NAME = "base"
TRAIN_NAME = "train.json"
# Found best for a whole workload on one GPU: notes of the learning study (three passes at 4e-4, batches of up to 128
# rows and 16k padded tokens). The defaults of SftHyper are for a CPU.
STUDY_HYPER = SftHyper(epochs=3, learning_rate=4e-4, batch_tokens=16_384, max_rows_per_batch=128, max_tokens=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachSettings:
    """How the generator is taught."""

    hyper: SftHyper = field(default_factory=lambda: STUDY_HYPER)
    device: str = "cpu"
    threads: int = 2


def teach(
    study: Study,
    base: Path,
    out: Path,
    settings: TeachSettings,
    report: Report,
    *,
    filler: CacheFiller | None = None,
) -> LearnedGenerator:
    """Teach the base generator in folder `base` (Hugging Face form) and leave `out/generator` and `out/train.json`.

    A generator that is there already is returned as it is. `filler`: processes that compile, begun ahead by whoever
    closes them; see `begin_ahead`.

    Raises:
        DivergedError, ArtifactError: as `learn_generator`.
    """
    folder = out / GENERATOR_NAME
    if (folder / MANIFEST_NAME).is_file():
        return read_taught(folder)
    torch.set_num_threads(settings.threads)
    phases = Phases(PHASES, report)
    parent = build_base_generator(base, out / BASE_NAME / "generator", provenance={"base": str(base)})
    task = GeneratorTask(
        parent=parent,
        out=folder,
        plan=study.plan,
        policy=TrainingPolicy(),
        hyper=settings.hyper,
        device=torch.device(settings.device),
        threads=settings.threads,
        # On a GPU the whole training takes less time than a few saves of its state.
        resume_dir=out / "resume" if settings.device == "cpu" else None,
        filler=filler,
        taken=frozenset(normalise_query(row.example.query_text) for row in study.rows("test")),
    )
    started = time.monotonic()
    learned = learn_generator(task, phases)
    seconds = time.monotonic() - started
    (out / TRAIN_NAME).write_text(json.dumps(_describe(learned, phases, settings, seconds), indent=1) + "\n", "utf-8")
    return learned


def begin_ahead(out: Path, settings: TeachSettings) -> AbstractContextManager[CacheFiller | None]:
    """Begin processes that compile for `teach`, before the study in `out` is read; its size tells if it is long enough.

    Nothing is begun where the generator is there already. The rows that are only measured count too, so a training may
    turn out too short for them: it ends them then.
    """
    hyper, device = settings.hyper, torch.device(settings.device)
    tokens = guess_tokens(read_size(out / STUDY_NAME), hyper)
    left = not (out / GENERATOR_NAME / MANIFEST_NAME).is_file()
    return fill_ahead(device, wanted=left and compiles_behind(hyper, device, tokens=tokens))


def read_taught(folder: Path) -> LearnedGenerator:
    """Return a generator that `teach` left; its weights need not have come along.

    Raises:
        ArtifactError: there is no manifest of a generator, or it does not say how it was taught.
    """
    manifest = read_manifest(folder)
    metrics = manifest.metrics
    known = {item.name: metrics[item.name] for item in fields(SftResult) if item.name in metrics}
    try:
        return LearnedGenerator(Version(folder, manifest), SftResult(**known))
    except TypeError as error:
        raise ArtifactError(f"{folder} holds no generator that was taught: {error}") from error


def read_phases(out: Path) -> dict[str, float]:
    """Return the seconds of the phases of `teach`; empty where its record did not come along."""
    path = out / TRAIN_NAME
    return dict(load_json(path)["phase_seconds"]) if path.is_file() else {}


def change_hyper(hyper: SftHyper, changes: Sequence[str]) -> SftHyper:
    """Return `hyper` with changes of the form NAME=VALUE.

    Raises:
        InvalidInputError: no such name, or a value of another kind; the message lists the names.
    """
    values: dict[str, Any] = {}
    kinds = {item.name: type(getattr(hyper, item.name)) for item in fields(hyper)}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise InvalidInputError(f"hyper-parameter {name!r}; allowed: {', '.join(kinds)}")
        try:
            values[name] = _read_value(kinds[name], text)
        except ValueError as error:
            raise InvalidInputError(f"hyper-parameter {name}={text}: {error}") from None
    return replace(hyper, **values)


def _read_value(kind: type, text: str) -> object:
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError("allowed: true, false")
        return text == "true"
    return kind(text)


def _describe(learned: LearnedGenerator, phases: Phases, settings: TeachSettings, seconds: float) -> Mapping[str, Any]:
    device = settings.device
    about: dict[str, Any] = {
        "generator": learned.version.manifest.version,
        "device": torch.cuda.get_device_name(0) if device.startswith("cuda") else device,
        "torch": torch.__version__,
        "seconds": round(seconds, 3),
        "phase_seconds": dict(phases.seconds),
        "hyper": dict(learned.version.manifest.hyper),
        "metrics": dict(learned.version.manifest.metrics),
    }
    made = learned.result
    if made is not None:
        passes = settings.hyper.epochs
        # Of the whole phase (dev losses, compiling and capturing included), and of the steps alone.
        for name, spent in (("", phases.seconds.get("train", 0.0)), ("_steps", made.seconds)):
            about[f"examples_a_second{name}"] = round(made.rows * passes / spent, 1) if spent else 0.0
            about[f"tokens_a_second{name}"] = round(made.tokens * passes / spent, 1) if spent else 0.0
    return about
