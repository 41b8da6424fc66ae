"""What each offline command does with its arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from shammah_chassis.errors import InvalidInputError, PreconditionError
from shammah_chassis.manifest import read_manifest

from shammah_trainer.base_models import LOCAL_VARIABLES, BaseModels, check_base, find_models_dir, pull
from shammah_trainer.learn_generator import LearnedGenerator
from shammah_trainer.offline.answer import answer_rows, grade_file
from shammah_trainer.offline.decide import DecideSettings, decide_study, has_generator, open_release_zero
from shammah_trainer.offline.prepare import LEDGER_NAME, Cut, Files, keep_ingested, prepare
from shammah_trainer.offline.report import write_report
from shammah_trainer.offline.rollouts_file import CANDIDATE, CHAMPION, GRADED_NAME, ROLLOUTS_NAME
from shammah_trainer.offline.study import STUDY_NAME, Study, find_limits, read_study, write_study
from shammah_trainer.offline.teach import (
    BASE_NAME,
    GENERATOR_NAME,
    STUDY_HYPER,
    TeachSettings,
    begin_ahead,
    change_hyper,
    read_taught,
    teach,
)
from shammah_trainer.publishing import Version
from shammah_trainer.rollouts import RolloutSettings
from shammah_trainer.round import RoundSettings
from shammah_trainer.round_plan import first_of_each
from shammah_trainer.scoring import SimilarityEncoder

_MALFORMED_SHOWN = 5


def run(chosen: argparse.Namespace) -> None:
    """Do everything here; started again, it goes on behind what is done."""
    if not (chosen.out / STUDY_NAME).is_file():
        cut_rows(chosen)
    learn(chosen)
    chosen.rollouts, chosen.no_compute = None, False
    judge(chosen)


def cut_rows(chosen: argparse.Namespace) -> None:
    """Cut workload files into `OUT/ledger.sqlite` and `OUT/study.jsonl.gz`."""
    files = Files(train=tuple(chosen.train), exam=tuple(chosen.exam), test=tuple(chosen.test))
    cut = Cut(
        by=chosen.by,
        leave_out=tuple(chosen.leave_out),
        family_rows=chosen.limit_per_family,
        exam_rows=chosen.exam_rows,
        train_rows=chosen.train_rows,
        judged_rows=chosen.judged_rows,
        test_rows=chosen.test_rows,
        teach_all=chosen.teach_all,
        seed=chosen.seed,
    )
    if not (chosen.out / STUDY_NAME).is_file():
        # A ledger without a study is what a kill left.
        for leftover in chosen.out.glob(f"{LEDGER_NAME}*"):
            leftover.unlink()
    if chosen.ingested is not None and not chosen.ingested.is_file():
        chosen.ingested.parent.mkdir(parents=True, exist_ok=True)
        keep_ingested(files, cut, chosen.ingested)
    prepared = prepare(files, cut, chosen.out, ingested=chosen.ingested)
    write_study(prepared.study, chosen.out / STUDY_NAME)
    for line in prepared.malformed[:_MALFORMED_SHOWN]:
        _say(f"skipped {line}")
    if len(prepared.malformed) > _MALFORMED_SHOWN:
        _say(f"... and {len(prepared.malformed) - _MALFORMED_SHOWN} more malformed lines")
    rows = ", ".join(f"{len(prepared.study.rows(part))} {part}" for part in ("train", "dev", "exam", "test"))
    _say(f"ingested {dict(prepared.outcomes)}; study of {rows} rows")


def learn(chosen: argparse.Namespace) -> None:
    """Teach the base generator and leave `OUT/generator` and `OUT/train.json`."""
    hyper = change_hyper(STUDY_HYPER, chosen.hyper)
    hyper = hyper if chosen.epochs is None else replace(hyper, epochs=chosen.epochs)
    settings = TeachSettings(hyper=hyper, device=_choose_device(chosen.device), threads=chosen.threads)
    with begin_ahead(chosen.out, settings) as filler:
        learned = teach(_open(chosen.out), _find_generator(chosen), chosen.out, settings, _Report(), filler=filler)
    if learned.result is not None:
        found = learned.result
        _say(f"{learned.version.manifest.version}: loss {found.loss_before:.4f} -> {found.loss_after:.4f}")


def answer(chosen: argparse.Namespace) -> None:
    """Answer rows into `OUT/rollouts.jsonl.gz`; what is there already is not computed again."""
    study = _open(chosen.out)
    folder = chosen.out / GENERATOR_NAME
    if not has_generator(chosen.out):
        raise PreconditionError(f"{chosen.out} has no taught generator; `train` makes one")
    settings = _rollout_settings(chosen)
    generator = Version(folder, read_manifest(folder))
    limits = find_limits(study, generator=generator, longest=settings.longest)
    share, target = _read_share(chosen.share), chosen.out / ROLLOUTS_NAME
    if chosen.share:
        target = target.with_name(f"{share.start}-{ROLLOUTS_NAME}")
    jobs = [(CANDIDATE, folder, [row for part in chosen.parts for row in study.rows(part)])]
    base = chosen.out / BASE_NAME / GENERATOR_NAME
    if "exam" in chosen.parts and chosen.base_rows and base.is_dir():
        jobs.append((CHAMPION, base, first_of_each(study.plan.exam, chosen.base_rows)))
    for name, source, rows in jobs:
        made = answer_rows(
            target,
            generator=name,
            folder=source,
            rows=rows[share],
            limits=limits,
            settings=settings,
            progress=lambda done, whole, name=name: _say(f"{name}: {done} of {whole} rows"),  # type: ignore[misc]
        )
        _say(f"{name}: {made} of {len(rows[share])} rows computed, the others were there")


def grade(chosen: argparse.Namespace) -> None:
    """Grade `OUT/rollouts.jsonl.gz` into `OUT/graded.jsonl.gz`."""
    study = _open(chosen.out)
    similarity = None
    if any(row.example.grader == "similarity" for part in ("dev", "exam", "test") for row in study.rows(part)):
        router = open_release_zero(_pull(chosen), chosen.out, precision="int8")[1]["router"]
        similarity = SimilarityEncoder(router.folder, router.manifest, threads=chosen.threads)
    try:
        counts = grade_file(
            chosen.out / ROLLOUTS_NAME,
            chosen.out / GRADED_NAME,
            study,
            similarity=similarity,
            progress=lambda done, whole: _say(f"graded {done} of {whole}"),
        )
    finally:
        if similarity is not None:
            similarity.close()
    _say(f"graded: {counts}")


def judge(chosen: argparse.Namespace) -> None:
    """Judge, certify, publish and measure; print the report and leave `OUT/result.json`."""
    rollouts = chosen.rollouts
    if rollouts is None and (chosen.out / GRADED_NAME).is_file():
        rollouts = chosen.out / GRADED_NAME
    settings = DecideSettings(
        round=RoundSettings(
            alpha=chosen.alpha,
            delta=chosen.delta,
            rollouts=_rollout_settings(chosen),
            validator_seconds=chosen.validator_seconds,
            validator_pairs=chosen.validator_pairs,
            index_rows=chosen.index_rows,
            device=_choose_device(chosen.validator_device),
            base_rows=chosen.base_rows,
            threads=chosen.threads,
        ),
        rollouts=rollouts,
        compute=not chosen.no_compute,
    )
    study, generator = _open(chosen.out), _open_generator(chosen.out)
    result = decide_study(study, generator, _pull(chosen), chosen.out, settings, _Report())
    print(write_report(result))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "run": run,
    "prepare": cut_rows,
    "train": learn,
    "rollouts": answer,
    "grade": grade,
    "judge": judge,
}


class _Report:
    """Says each stage once."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, stage: str, share: float) -> None:
        if stage != self._stage:
            self._stage = stage
            _say(f"{100 * share:.0f} %: {stage}")


def _open(out: Path) -> Study:
    return read_study(out / STUDY_NAME)


def _open_generator(out: Path) -> LearnedGenerator:
    if not has_generator(out):
        raise PreconditionError(f"{out} has no taught generator; `train` makes one")
    return read_taught(out / GENERATOR_NAME)


def _find_generator(chosen: argparse.Namespace) -> Path:
    """Return the base generator; a machine that only teaches needs no base encoder."""
    named = os.environ.get(LOCAL_VARIABLES["generator"])
    folder = Path(named) if named else (chosen.base or find_models_dir()) / "generator"
    if not folder.is_dir():
        return _pull(chosen).generator
    check_base("generator", folder)
    return folder


def _pull(chosen: argparse.Namespace) -> BaseModels:
    return pull(chosen.base or find_models_dir(), progress=_say)


def _rollout_settings(chosen: argparse.Namespace) -> RolloutSettings:
    cuda = chosen.precision == "fp16"
    return RolloutSettings(
        precision=chosen.precision,
        threads=chosen.threads,
        slots=chosen.slots or (256 if cuda else 8),
        context=chosen.context,
        longest=chosen.max_tokens,
    )


def _choose_device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is 'cuda' but torch sees none; allowed here: auto, cpu")
    return wanted


def _read_share(text: str) -> slice:
    """Return which rows "I/N" means: every Nth from the Ith on, counted from 0; all for ""."""
    if not text:
        return slice(0, None)
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise InvalidInputError(f"share {text!r}; allowed: I/N with I from 0 to N - 1")
    return slice(int(first), None, int(count))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
