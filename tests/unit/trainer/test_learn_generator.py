"""The exported graph may be checked behind what follows; nobody gets a version that failed the check."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shammah_chassis.errors import ArtifactError
from shammah_chassis.examples import Message
from shammah_chassis.manifest import MANIFEST_NAME, verify_folder
from shammah_trainer import learn_generator as learn_generator_module
from shammah_trainer.batches import SftRow
from shammah_trainer.fill_ahead import fill_ahead
from shammah_trainer.learn_generator import GeneratorTask, learn_generator
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.phases import Phases
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.publishing import Description, make_version
from shammah_trainer.round import PHASES
from shammah_trainer.round_plan import RoundPlan
from shammah_trainer.sft import SftHyper, SftResult
from shammah_trainer.student import read_config
from support.trainer import make_switch_rows


@pytest.fixture
def task(tiny_generator: Path, tmp_path: Path) -> GeneratorTask:
    shutil.copytree(tiny_generator, tmp_path / "parent")
    about = Description(config=read_config(tiny_generator))
    rows = tuple(
        LedgerRow(f"r{n}", n + 1, "train", example.category, f"r{n}", False, 1.0, 0, example)
        for n, example in enumerate(make_switch_rows(6))
    )
    return GeneratorTask(
        parent=make_version("generator", tmp_path / "parent", parent=None, about=about),
        out=tmp_path / "out",
        plan=RoundPlan(rows, (), (), (), 6, 0),
        policy=TrainingPolicy(),
        hyper=SftHyper(epochs=1),
        device=torch.device("cpu"),
        threads=1,
    )


def run(task: GeneratorTask):
    return learn_generator(task, Phases(PHASES, lambda stage, share: None))


def test_a_version_checked_behind_is_the_version_that_is_checked_at_once(task: GeneratorTask) -> None:
    written: list[Path] = []
    learned = run(replace(task, check_behind=True, written=written.append))
    assert written == [task.out]
    assert not (task.out / MANIFEST_NAME).exists()
    confirmed = learned.confirm()
    assert confirmed.parity is None
    assert confirmed.version.manifest.version == learned.version.manifest.version
    assert verify_folder(task.out, role="generator").metrics["parity"] < 1e-3
    at_once = run(replace(task, out=task.out.parent / "again"))
    assert at_once.version.manifest.version == confirmed.version.manifest.version
    assert at_once.version.manifest.metrics["parity"] == pytest.approx(confirmed.version.manifest.metrics["parity"])


def test_what_fails_the_check_behind_is_refused_and_has_no_manifest(
    task: GeneratorTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(*_: object, **__: object) -> float:
        raise ArtifactError("differs")

    monkeypatch.setattr(learn_generator_module, "check_parity", differ)
    learned = run(replace(task, check_behind=True))
    with pytest.raises(ArtifactError, match="differs"):
        learned.confirm()
    assert not (task.out / MANIFEST_NAME).exists()


def test_labels_are_learned_with_words_left_out_where_the_hyper_says_so(
    task: GeneratorTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def note(student: object, train: Sequence[SftRow], *_: object, **__: object) -> SftResult:
        given.extend(len(row.others) for row in train)
        return SftResult(1.0, 1.0, 1, len(train), 0, 1, cut_short=False)

    monkeypatch.setattr(learn_generator_module, "fine_tune_soup", note)
    rows = tuple(
        replace(row, example=replace(row.example, grader="label", query=(Message("user", f"{row.id} one two three"),)))
        for row in task.plan.new
    )
    run(replace(task, plan=replace(task.plan, new=rows), hyper=SftHyper(epochs=1, variants=2, word_dropout=0.5)))
    assert given == [2] * len(rows)
    assert task.out.joinpath(MANIFEST_NAME).is_file()


def test_what_is_computed_is_learned_with_other_numbers_in_each_epoch(
    task: GeneratorTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[SftRow] = []

    def note(student: object, train: Sequence[SftRow], *_: object, **__: object) -> SftResult:
        given.extend(train)
        return SftResult(1.0, 1.0, 1, len(train), 0, 1, cut_short=False)

    monkeypatch.setattr(learn_generator_module, "fine_tune_soup", note)
    rows = tuple(
        replace(
            row,
            example=replace(
                row.example,
                grader="numeric",
                query=(Message("user", f"{number}37 + {number}.5"),),
                response=f"{101 * number + 37}.5",
            ),
        )
        for number, row in enumerate(task.plan.new, start=1)
    )
    run(replace(task, plan=replace(task.plan, new=rows), hyper=SftHyper(epochs=3, computed=2)))
    assert len(given) == 3 * len(rows)
    assert [len(row.others) for row in given] == [0] * len(rows) + [2] * 2 * len(rows)
    texts = [other.ids for row in given for other in (row, *row.others)]
    assert len(set(texts)) == len(texts)


def test_processes_that_its_caller_began_come_to_the_training_which_ends_those_it_does_not_need(
    task: GeneratorTask,
) -> None:
    with fill_ahead(task.device, wanted=True) as filler:
        assert filler is not None
        run(replace(task, filler=filler))
        assert filler.closed
