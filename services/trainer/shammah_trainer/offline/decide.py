"""Steps 4 to 8 of a round on a study, and its test: rollouts, judges, certificates, gate, release, figures.

The work is `Round`, with the generator that `teach` left; versions and release go to a store in a folder. It knows
folders, neither bus nor services.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import PreconditionError
from shammah_chassis.manifest import MANIFEST_NAME, ROLES, Role, read_manifest
from shammah_chassis.releases import Release, parse_release
from shammah_chassis.ulid import new_ulid
from shammah_generator.model import TOKENIZER_NAME

from shammah_trainer.base_models import BaseModels
from shammah_trainer.evidence import ScoredRow
from shammah_trainer.learn_generator import LearnedGenerator
from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.offline.answer import take_into_ledger
from shammah_trainer.offline.measure import SCORES_NAME, describe_rows, measure, write_scores
from shammah_trainer.offline.prepare import LEDGER_NAME, fill_ledger
from shammah_trainer.offline.rollouts_file import CANDIDATE, CHAMPION
from shammah_trainer.offline.study import Study, find_limits, read_max_tokens
from shammah_trainer.offline.teach import BASE_NAME, read_phases
from shammah_trainer.phases import Phases, Report
from shammah_trainer.publishing import Version, publish
from shammah_trainer.release_zero import build_release_zero
from shammah_trainer.rollouts import Rollout, read_rollouts, roll_out
from shammah_trainer.round import PHASES, Round, RoundInputs, RoundProduct, RoundSettings
from shammah_trainer.student import WEIGHTS_NAME

RESULT_NAME = "result.json"
RELEASE_NAME = "release.json"
STORE_NAME = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideSettings:
    """`rollouts`: a graded file, or None. `compute`: what it lacks may be computed here (else that is an error)."""

    round: RoundSettings = field(default_factory=RoundSettings)
    rollouts: Path | None = None
    compute: bool = True


def decide_study(
    study: Study, generator: LearnedGenerator, base: BaseModels, out: Path, settings: DecideSettings, report: Report
) -> dict[str, Any]:
    """Judge, certify, publish and measure; return the result, which is written to `out/result.json` too.

    `out` holds the ledger that the study was cut from; where it did not come along, one is made of the study. The
    release is published only where the weights are.

    Raises:
        PreconditionError: rollouts are missing and may not be computed here.
        ShammahError: as `Round.compute`.
    """
    zero, parents = open_release_zero(base, out, precision=settings.round.rollouts.precision)
    generator = _complete_folder(generator, parents["generator"])
    if not (out / LEDGER_NAME).is_file():
        fill_ledger(study, out / LEDGER_NAME)
    ledger = Ledger(out / LEDGER_NAME)
    try:
        plain = _with_rollouts(ledger, study, generator, parents, settings)
        # The limits of a round follow from what it teaches; this generator was taught elsewhere.
        plain = replace(plain, sft=replace(plain.sft, max_tokens=read_max_tokens(generator.version)))
        phases = Phases((*PHASES, ("test", 0.2)), report)
        inputs = RoundInputs(
            id=new_ulid(), work=_fresh(out / "work"), champion=zero, parents=parents, plan=study.plan, fence=0
        )
        made = Round(ledger, inputs, plain, phases)
        product = made.compute(generator)
        scored = _score_all(made, product, study, ledger, plain, phases)
    finally:
        ledger.close()
    return _finish(study, product, scored, phases, out)


def open_release_zero(base: BaseModels, out: Path, *, precision: str) -> tuple[Release, dict[Role, Version]]:
    """Return release 0 of the base models below `out/base`, made at the first call."""
    folder = out / BASE_NAME
    path = folder / RELEASE_NAME
    if not path.is_file():
        release, versions = build_release_zero(base, folder, precision=precision, fence=0)
        path.write_text(release.to_json(), "utf-8")
        return release, versions
    found: dict[Role, Version] = {role: Version(folder / role, read_manifest(folder / role)) for role in ROLES}
    return parse_release(path.read_text("utf-8")), found


def _complete_folder(generator: LearnedGenerator, base: Version) -> LearnedGenerator:
    """Give a generator that came back without its files the tokenizer, which training never changes."""
    folder = generator.version.folder
    if not (folder / TOKENIZER_NAME).is_file():
        shutil.copyfile(base.folder / TOKENIZER_NAME, folder / TOKENIZER_NAME)
    return generator


def _with_rollouts(
    ledger: Ledger,
    study: Study,
    generator: LearnedGenerator,
    parents: Mapping[Role, Version],
    settings: DecideSettings,
) -> RoundSettings:
    """Take the rollouts of the file into the ledger; return the settings of a round that fits them."""
    counts = {CANDIDATE: 0, CHAMPION: 0}
    if settings.rollouts is not None:
        names = {
            CANDIDATE: generator.version.manifest.version,
            CHAMPION: parents["generator"].manifest.version,
        }
        counts = take_into_ledger(ledger, settings.rollouts, versions=names)
    if settings.compute:
        return settings.round
    rows = [*study.plan.dev, *study.plan.exam, *study.test]
    missing = len(rows) - len(_read(ledger, study, generator.version, rows, settings.round))
    if missing:
        raise PreconditionError(f"{missing} of {len(rows)} rows have no rollout; `rollouts` makes what is missing")
    # Without rows of the champion there is nothing to compare with: the gate then says so.
    return settings.round if counts[CHAMPION] else replace(settings.round, base_rows=0)


def _read(
    ledger: Ledger, study: Study, version: Version, rows: Sequence[LedgerRow], settings: RoundSettings
) -> dict[str, Rollout]:
    limits = _limits(study, version, settings)
    return read_rollouts(ledger, version=version.manifest.version, rows=rows, limits=limits)


def _limits(study: Study, version: Version, settings: RoundSettings) -> dict[str, int]:
    return find_limits(study, generator=version, longest=settings.rollouts.longest)


def _score_all(
    made: Round, product: RoundProduct, study: Study, ledger: Ledger, settings: RoundSettings, phases: Phases
) -> dict[str, list[ScoredRow]]:
    """Return dev, exam and test rows as the new release sees them."""
    version = product.versions["generator"]
    with phases.run("test", f"answering and scoring {len(study.test)} test rows") as advance:
        rollouts = roll_out(
            ledger,
            version=version.manifest.version,
            folder=version.folder,
            rows=study.test,
            limits=_limits(study, version, settings),
            settings=settings.rollouts,
            progress=lambda share: advance(share / 2),
        )
        advance(0.5)
        scored = made.score(study.test, rollouts, product.versions["router"], product.versions["validator"])
        return {**made.scored, "test": scored}


def _finish(
    study: Study, product: RoundProduct, scored: Mapping[str, list[ScoredRow]], phases: Phases, out: Path
) -> dict[str, Any]:
    release = product.release
    whole = (product.versions["generator"].folder / WEIGHTS_NAME).is_file()
    if whole:
        with phases.run("publish", "publishing the release"):
            asyncio.run(_publish(out / STORE_NAME, product))
    (out / RELEASE_NAME).write_text(release.to_json(), "utf-8")
    described = [
        row for part, items in scored.items() for row in describe_rows(items, release, part=part, names=study.names)
    ]
    write_scores(described, out / SCORES_NAME)
    result = {
        **product.result,
        "phase_seconds": read_phases(out) | dict(phases.seconds),
        "published": whole,
        "thresholds": {name: policy.threshold for name, policy in release.categories.items()},
        "policies": {name: policy.reason for name, policy in release.categories.items()},
        "study": dict(study.options),
        "rows": {part: len(study.rows(part)) for part in ("train", "dev", "exam", "test")},
        "test": measure(scored["test"], release),
    }
    (out / RESULT_NAME).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", "utf-8")
    return result


async def _publish(root: Path, product: RoundProduct) -> None:
    async def alone() -> None:
        """Nobody else writes into this store: there is no lease to lose."""

    await publish(DirectoryStore(root), product.release, product.versions, check_lease=alone)


def _fresh(folder: Path) -> Path:
    """Return an empty folder for what a round writes; an earlier attempt's half-made files go."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def has_generator(out: Path) -> bool:
    """Say whether a taught generator is in a study's folder."""
    return (out / "generator" / MANIFEST_NAME).is_file()
