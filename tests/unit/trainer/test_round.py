"""A round that begins things early comes to the same release as one that does all in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.errors import ArtifactError
from shammah_chassis.manifest import MANIFEST_NAME
from shammah_trainer import ahead as ahead_module
from shammah_trainer import learn_generator as learn_generator_module
from shammah_trainer import rollouts as rollouts_module
from shammah_trainer.ledger import Ledger
from shammah_trainer.phases import Phases
from shammah_trainer.release_zero import build_release_zero
from shammah_trainer.rollouts import RolloutSettings
from shammah_trainer.round import PHASES, Round, RoundInputs, RoundProduct, RoundSettings
from shammah_trainer.round_plan import PlanLimits, make_plan
from shammah_trainer.sft import SftHyper
from support.trainer import make_base_models, make_example, make_switch_rows

SETTINGS = RoundSettings(
    sft=SftHyper(epochs=2, learning_rate=5e-3, batch_tokens=512, max_rows_per_batch=16),
    rollouts=RolloutSettings(precision="int8", threads=1, slots=4, context=128),
    validator_seconds=600.0,
    base_rows=5,
    threads=1,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, RoundInputs]]:
    """A ledger with a small task and release 0: made once, as tracing the graphs takes seconds."""
    folder = tmp_path_factory.mktemp("round")
    release, versions = build_release_zero(
        make_base_models(folder / "base"), folder / "zero", precision="int8", fence=1
    )
    ledger = Ledger(folder / "ledger.sqlite")
    for number, row in enumerate(make_switch_rows(50)):
        part = "train" if number < 24 else "dev" if number < 36 else "exam"
        ledger.insert(row, sequence=1, part=part, cluster=row.id, given=False, evidence=True)
    ledger.write_meta("sequence", 1)
    plan = make_plan(ledger, champion_position=0, limits=PlanLimits(), seed=3)
    yield ledger, RoundInputs(id="0" * 26, work=folder, champion=release, parents=versions, plan=plan, fence=1)
    ledger.close()


def run(inputs: tuple[Ledger, RoundInputs], work: Path, *, early: bool, again: bool = False) -> RoundProduct:
    ledger, about = inputs
    if not again:
        ledger.execute("DELETE FROM rollouts")
    made = Round(ledger, replace(about, work=work), SETTINGS, Phases(PHASES, lambda stage, share: None))
    made._early = early
    return made.compute()


def test_what_is_begun_early_changes_nothing(inputs: tuple[Ledger, RoundInputs], tmp_path: Path) -> None:
    in_order = run(inputs, tmp_path / "one", early=False)
    early = run(inputs, tmp_path / "two", early=True)
    for role, version in in_order.versions.items():
        assert early.versions[role].manifest.version == version.manifest.version, role
    assert early.versions["generator"].manifest.metrics["parity"] < 1e-3
    one, two = (replace(product.release, created_at=0.0) for product in (in_order, early))
    assert one == two


def test_what_the_champion_answered_is_not_answered_again(
    inputs: tuple[Ledger, RoundInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(inputs, tmp_path / "first", early=True)
    loaded: list[Path] = []
    real = rollouts_module.load_for_rollouts

    def note(folder: Path, settings: RolloutSettings):
        loaded.append(folder)
        return real(folder, settings)

    monkeypatch.setattr(ahead_module, "load_for_rollouts", note)
    inputs[0].execute("DELETE FROM rollouts WHERE generator != ?", (inputs[1].parents["generator"].manifest.version,))
    run(inputs, tmp_path / "second", early=True, again=True)
    assert loaded == [tmp_path / "second" / "generator"]


def test_an_export_that_fails_its_check_behind_the_rollouts_ends_the_round(
    inputs: tuple[Ledger, RoundInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(*_: object, **__: object) -> float:
        raise ArtifactError("differs")

    monkeypatch.setattr(learn_generator_module, "check_parity", differ)
    with pytest.raises(ArtifactError, match="differs"):
        run(inputs, tmp_path / "third", early=True)
    assert not (tmp_path / "third" / "generator" / MANIFEST_NAME).exists()


def test_a_row_that_is_too_long_to_be_taught_is_not_counted_and_lifts_no_limit(
    inputs: tuple[Ledger, RoundInputs], tmp_path: Path
) -> None:
    ledger, about = inputs
    before = run(inputs, tmp_path / "before", early=False)
    row = make_example("write a long story", "word " * 3000)
    ledger.insert(row, sequence=1, part="train", cluster=row.id, given=False, evidence=True)
    try:
        plan = make_plan(ledger, champion_position=0, limits=PlanLimits(), seed=3)
        made = run((ledger, replace(about, plan=plan)), tmp_path / "with", early=False)
    finally:
        ledger.execute("DELETE FROM examples WHERE id = ?", (row.id,))
    assert (made.result["examples_trained"], made.result["new_rows"]) == (24, 25)
    limits = [product.release.categories["switch"].max_new_tokens for product in (before, made)]
    assert limits[0] == limits[1] < 64
