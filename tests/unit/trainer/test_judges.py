"""Step 5 of a round with evidence that teaches little or nothing: the judges are made, and nothing is promised."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shammah_chassis.manifest import Role, verify_folder
from shammah_chassis.neighbours import INDEX_NAME, load_index
from shammah_trainer.certify import CategoryEvidence, GradedRow, certify
from shammah_trainer.encoders.head_choice import measure_auroc
from shammah_trainer.evidence import ScoredRow, leave_out
from shammah_trainer.judges import JudgesTask, LearnedJudges, learn_judges
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.publishing import Description, Version, make_version
from shammah_trainer.rollouts import Rollout
from shammah_trainer.scoring import Judged, Routed, judge_responses
from support.encoders import base_router, base_validator
from support.trainer import make_switch_rows

STATISTICS = (-1.0,) * 4 + (3.0,) + (0.5,) * 5


def make_parents(folder: Path) -> dict[Role, Version]:
    parents: dict[Role, Version] = {}
    roles: tuple[Role, Role] = ("router", "validator")
    for role, (source, result) in zip(roles, (base_router(), base_validator()), strict=True):
        shutil.copytree(source, folder / role)
        parents[role] = make_version(role, folder / role, parent=None, about=Description(config=result.config))
    return parents


def make_rows(count: int, part: str, *, seed: int) -> tuple[LedgerRow, ...]:
    return tuple(
        LedgerRow(f"{part}{n}", n + 1, part, example.category, f"{part}{n}", False, 1.0, 0, example)
        for n, example in enumerate(make_switch_rows(count, seed=seed))
    )


@pytest.fixture
def task(tmp_path: Path) -> JudgesTask:
    dev = make_rows(30, "dev", seed=1)
    return JudgesTask(
        parents=make_parents(tmp_path / "parents"),
        work=tmp_path,
        train=make_rows(30, "train", seed=0),
        dev=dev,
        rollouts={row.id: Rollout("yes", "stop", STATISTICS, row.example.response == "yes", 10) for row in dev},
        policy=TrainingPolicy(),
        position=60,
        seed=0,
        validator_seconds=1.0,
    )


def judge_dev(task: JudgesTask, judges: LearnedJudges) -> list[float]:
    version = judges.validator
    items = [(row.example.query_text, "yes", row.category, STATISTICS) for row in task.dev]
    return [found.quality for found in judge_responses(version.folder, version.manifest, items, threads=1)]


def certify_dev(task: JudgesTask, judges: LearnedJudges, *, good: bool | None = None) -> float | None:
    """Certify on the dev rows taken twice, as dev and as exam; `good` is every row's grade, None leaves their own."""
    qualities = judge_dev(task, judges)
    rows = [
        GradedRow(score=quality, good=bool(task.rollouts[row.id].good) if good is None else good, eligible=True)
        for quality, row in zip(qualities, task.dev, strict=True)
    ]
    return certify({"switch": CategoryEvidence(dev=rows, exam=rows)}, alpha=0.05, delta=0.05)["switch"].threshold


def test_the_version_carries_an_index_of_the_rows_that_exist_and_its_manifest_names_it(task: JudgesTask) -> None:
    taught = make_rows(50, "train", seed=0)
    judges = learn_judges(replace(task, index=taught))
    assert INDEX_NAME in judges.validator.manifest.files
    verify_folder(judges.validator.folder, role="validator")
    index = load_index(judges.validator.folder)
    assert index is not None
    assert all(index.holds(row.id) for row in taught)

    after = learn_judges(
        replace(
            task, parents={**task.parents, "validator": judges.validator}, work=task.work / "next", index=taught[1:]
        )
    )
    forgotten = load_index(after.validator.folder)
    assert forgotten is not None
    assert not forgotten.holds(taught[0].id)
    assert forgotten.holds(taught[1].id)


@pytest.mark.parametrize("good", [True, False])
def test_one_class_in_dev_makes_a_constant_judge(task: JudgesTask, good: bool) -> None:
    rollouts = {name: replace(rollout, good=good) for name, rollout in task.rollouts.items()}
    task = replace(task, rollouts=rollouts)
    judges = learn_judges(task)
    assert judges.results["validator"].metrics["quality_constant"]
    assert judges.results["router"].metrics["local_constant"]
    assert judge_dev(task, judges) == pytest.approx([31 / 32 if good else 1 / 32] * 30, abs=1e-4)


def test_dev_rows_are_told_by_heads_that_have_not_seen_them(task: JudgesTask) -> None:
    # Grades that nothing explains: the served head fits some of them, a head that left them out can't.
    rng = random.Random(5)
    statistics = {row.id: tuple(rng.gauss(0, 1) for _ in range(10)) for row in task.dev}
    goods = {row.id: rng.random() < 0.5 for row in task.dev}
    task = replace(task, rollouts={n: Rollout("yes", "stop", statistics[n], goods[n], 10) for n in goods})
    judges = learn_judges(task)
    assert set(judges.dev_quality) == set(judges.dev_local) == set(goods)
    version = judges.validator
    items = [(row.example.query_text, "yes", row.category, statistics[row.id]) for row in task.dev]
    served = [found.quality for found in judge_responses(version.folder, version.manifest, items, threads=1)]
    good = np.array([goods[row.id] for row in task.dev])
    left_out = np.array([judges.dev_quality[row.id] for row in task.dev])
    assert measure_auroc(np.array(served), good) > 0.7
    assert measure_auroc(left_out, good) < 0.65
    assert len({round(value, 6) for value in judges.dev_local.values()}) > 10
    assert all(0.0 < value < 1.0 for value in judges.dev_local.values())


def test_of_queries_that_are_all_one_nothing_can_be_left_out(task: JudgesTask) -> None:
    dev = tuple(replace(row, example=task.dev[0].example) for row in task.dev)
    judges = learn_judges(replace(task, dev=dev))
    assert (judges.dev_quality, judges.dev_local) == ({}, {})


def test_the_round_reads_prefilter_and_order_off_the_left_out_scores() -> None:
    row = make_rows(3, "dev", seed=1)
    statistics = STATISTICS
    scored = [
        ScoredRow(
            entry,
            Rollout(text, "stop", statistics, True, 10),
            Routed(0.9, category, truncated=False),
            Judged(0.8, truncated=False),
        )
        for entry, text, category in zip(row, ("yes", " ", "yes"), ("switch", "switch", "lamp"), strict=True)
    ]
    told = {entry.id: 0.25 for entry in row}
    found = leave_out(scored, dev_local=told, dev_quality=told)
    # An empty response has no merit, and a score as of another category is none, whatever a head says.
    assert [item.judged.quality for item in found] == [0.25, 0.8, 0.8]
    assert [item.routed.local_probability for item in found] == [0.25] * 3
    assert leave_out(scored, dev_local={}, dev_quality={}) == scored


def test_without_graded_rows_the_judges_are_made_and_nothing_is_certified(task: JudgesTask) -> None:
    rollouts = {name: replace(rollout, good=None) for name, rollout in task.rollouts.items()}
    for ungraded in (rollouts, {}):
        judges = learn_judges(replace(task, rollouts=ungraded))
        assert judges.results["validator"].metrics["graded"] == 0
        assert judge_dev(task, judges) == pytest.approx([0.5] * 30)
    assert certify({"switch": CategoryEvidence(dev=[], exam=[])}, alpha=0.05, delta=0.05)["switch"].threshold is None


def test_when_every_threshold_fails_the_category_is_forwarded(task: JudgesTask) -> None:
    judges = learn_judges(task)
    assert certify_dev(task, judges, good=False) is None
    # 30 rows can't prove a promise of 5 % to 95 % either, however good they are.
    assert certify_dev(task, judges, good=True) is None


def test_contradictory_rows_teach_no_certainty(task: JudgesTask) -> None:
    example = task.dev[0].example
    dev = tuple(replace(row, example=example) for row in task.dev)
    train = tuple(
        replace(row, example=replace(row.example, query=task.train[0].example.query, response="yes" if n % 2 else "no"))
        for n, row in enumerate(task.train)
    )
    rollouts = {row.id: replace(task.rollouts[row.id], good=n % 2 == 0) for n, row in enumerate(dev)}
    task = replace(task, dev=dev, train=train, rollouts=rollouts)
    judges = learn_judges(task)
    assert judge_dev(task, judges) == pytest.approx([0.5] * 30, abs=0.1)
    assert certify_dev(task, judges) is None
