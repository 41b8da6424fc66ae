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
from shammah_trainer.evidence import LeftOut
from shammah_trainer.judges import JudgesTask, LearnedJudges, learn_judges
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.publishing import Description, Version, make_version
from shammah_trainer.rollouts import Rollout
from shammah_trainer.scoring import Routed, judge_responses
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
    assert set(judges.dev.local) == set(judges.dev.category) == set(goods)
    assert set(judges.dev.quality) == {name for name, category in judges.dev.category.items() if category}
    version = judges.validator
    items = [(row.example.query_text, "yes", row.category, statistics[row.id]) for row in task.dev]
    served = [found.quality for found in judge_responses(version.folder, version.manifest, items, threads=1)]
    good = np.array([goods[row.id] for row in task.dev])
    left_out = np.array([judges.dev.quality.get(row.id, 0.5) for row in task.dev])
    assert measure_auroc(np.array(served), good) > 0.7
    assert measure_auroc(left_out, good) < 0.65
    assert len({round(value, 6) for value in judges.dev.local.values()}) > 10
    assert all(0.0 < value < 1.0 for value in judges.dev.local.values())


def test_of_queries_that_are_all_one_nothing_can_be_left_out(task: JudgesTask) -> None:
    dev = tuple(replace(row, example=task.dev[0].example) for row in task.dev)
    judges = learn_judges(replace(task, dev=dev))
    assert judges.dev == LeftOut()


def test_what_heads_say_that_have_not_seen_a_dev_row_stands_in_the_place_of_what_served_ones_do() -> None:
    row, other = make_rows(2, "dev", seed=1)
    answer, empty = (Rollout(text, "stop", STATISTICS, True, 10) for text in ("yes", " "))
    routed = Routed(0.9, "switch", truncated=False)
    left_out = LeftOut(local={row.id: 0.25}, category={row.id: "lamp"}, quality={row.id: 0.5})
    assert left_out.route(row, routed) == Routed(0.25, "lamp", truncated=False)
    assert left_out.route(other, routed) == routed
    assert left_out.judges(row, answer, Routed(0.9, "lamp", truncated=False))
    # Its quality is as of another category, it is empty, or nothing is known of it: the served head is asked.
    assert not left_out.judges(row, answer, routed)
    assert not left_out.judges(row, empty, Routed(0.9, "lamp", truncated=False))
    assert not left_out.judges(other, answer, routed)
    assert LeftOut(quality={row.id: 0.5}).judges(row, answer, routed)


def test_a_judge_learns_from_a_dev_row_under_the_category_that_it_is_taken_for(task: JudgesTask) -> None:
    """Dev rows of another category that ask what the known one asks, and are answered badly."""
    strays = tuple(
        replace(row, id=f"stray{number}", category="lamp") for number, row in enumerate(make_rows(12, "dev", seed=7))
    )
    bad = {row.id: Rollout("yes", "stop", STATISTICS, False, 10) for row in strays}
    good = {name: replace(rollout, good=True) for name, rollout in task.rollouts.items()}
    judges = learn_judges(replace(task, dev=(*task.dev, *strays), rollouts=good | bad))
    taken = [judges.dev.category[row.id] for row in strays]
    assert taken.count("switch") >= 6
    # Told apart by category alone, each of the two would be sure of its own.
    sure = [value for name, value in judges.dev.quality.items() if judges.dev.category[name] == "switch"]
    assert max(sure) < 0.9
