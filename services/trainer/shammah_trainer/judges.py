"""Step 5 of a round: train validator and router from the champion's, on teacher texts and graded dev rollouts.

It knows which rows may teach which judge; how they learn is in `encoders`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.manifest import Role

from shammah_trainer.encoders.results import (
    GradedRow,
    IndexRow,
    RoleResult,
    RouterHyper,
    RouterRow,
    TextRow,
    ValidatorHyper,
)
from shammah_trainer.encoders.train_router import train_router
from shammah_trainer.encoders.train_validator import train_validator
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.policy import TrainingPolicy, summarise_provenance
from shammah_trainer.publishing import Description, Version, make_version
from shammah_trainer.rollouts import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgesTask:
    """What is needed to train both judges. No label comes from a model's own score: `rollouts` are graded."""

    parents: Mapping[Role, Version]
    work: Path
    train: tuple[LedgerRow, ...]
    dev: tuple[LedgerRow, ...]
    rollouts: Mapping[str, Rollout]
    policy: TrainingPolicy
    position: int
    seed: int
    validator_seconds: float
    index: tuple[LedgerRow, ...] = ()
    """Every train row that still exists, for the index of nearest examples; none takes those of `train`."""
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class LearnedJudges:
    """The two new versions, and what their training said, by role.

    `dev_local` and `dev_quality`: by id of a graded dev row, what the heads say of it when they have not seen it. The
    served heads were fitted on these very rows, and would look surer and better on them than on any exam.
    """

    router: Version
    validator: Version
    results: dict[str, RoleResult]
    dev_local: Mapping[str, float]
    dev_quality: Mapping[str, float]


def learn_judges(task: JudgesTask) -> LearnedJudges:
    """Train the validator, then the router, and describe both as versions."""
    validator = _learn_validator(task)
    router = _learn_router(task)
    return LearnedJudges(
        router=_describe(task, "router", router),
        validator=_describe(task, "validator", validator),
        results={"router": router, "validator": validator},
        dev_local=_by_id(task, router),
        dev_quality=_by_id(task, validator),
    )


def _graded_dev(task: JudgesTask) -> list[tuple[LedgerRow, Rollout, bool]]:
    """Return the dev rows whose rollouts are graded, with the grades, in the order in which both heads see them."""
    usable = [row for row in task.dev if row.category and row.example.query_text.strip()]
    found = [(row, task.rollouts[row.id]) for row in usable if row.id in task.rollouts]
    return [(row, rollout, rollout.good) for row, rollout in found if rollout.good is not None]


def _by_id(task: JudgesTask, result: RoleResult) -> dict[str, float]:
    """Return the probabilities of graded dev rows by id; none where nothing could be left out."""
    if result.fitted is None:
        return {}
    return {row.id: value for (row, _, _), value in zip(_graded_dev(task), result.fitted, strict=True)}


def _learn_validator(task: JudgesTask) -> RoleResult:
    texts = [
        TextRow(row.example.query_text, row.example.response, row.category)
        for row in task.train
        if task.policy.allows(row.example, "validator")
    ]
    graded = [
        GradedRow(row.example.query_text, rollout.text, row.category, rollout.statistics, good)
        for row, rollout, good in _graded_dev(task)
    ]
    return train_validator(
        task.parents["validator"].folder,
        texts,
        graded,
        task.work / "validator",
        hyper=ValidatorHyper(max_seconds=task.validator_seconds),
        seed=task.seed,
        index=[
            IndexRow(row.id, row.example.query_text, row.example.response, row.category)
            for row in task.index or task.train
            if task.policy.allows(row.example, "validator")
        ],
        device=task.device,
    )


def _learn_router(task: JudgesTask) -> RoleResult:
    rows = [
        RouterRow(row.example.query_text, row.category)
        for row in task.train
        if task.policy.allows(row.example, "router")
    ]
    for row in task.dev:
        rollout = task.rollouts.get(row.id)
        rows.append(RouterRow(row.example.query_text, row.category, rollout.good if rollout else None))
    return train_router(task.parents["router"].folder, rows, task.work / "router", hyper=RouterHyper(), seed=task.seed)


def _describe(task: JudgesTask, role: Role, result: RoleResult) -> Version:
    allowed = [row.example for row in task.train if task.policy.allows(row.example, role)]
    about = Description(
        config=result.config,
        labels=result.labels,
        hyper=result.hyper,
        metrics={"loss_before": result.loss_before, "loss_after": result.loss_after, **result.metrics},
        provenance=summarise_provenance(allowed, task.policy),
        position=task.position,
    )
    return make_version(role, task.work / role, parent=task.parents[role].manifest, about=about)
