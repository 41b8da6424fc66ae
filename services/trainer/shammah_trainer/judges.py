"""Step 5 of a round: train validator and router from the champion's, on teacher texts and graded dev rollouts.

It knows which rows may teach which judge; how they learn is in `encoders`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from shammah_chassis.manifest import Role

from shammah_trainer.encoders.query_vectors import QueryVectors
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
from shammah_trainer.encoders.train_validator import Means, train_validator
from shammah_trainer.evidence import LeftOut
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
    validator_pairs: int = 800
    index_rows: int = 2000
    index: tuple[LedgerRow, ...] = ()
    """Every train row that is taught by now, for the index of nearest examples; none takes those of `train`."""
    device: str = "cpu"
    vectors: QueryVectors | None = None
    """Vectors of queries that the round has computed already."""


@dataclass(frozen=True, slots=True)
class LearnedJudges:
    """The two new versions, and what their training said, by role.

    `dev`: what heads that have not seen the graded dev rows say of these. The served heads were fitted on these very
    rows, and would look surer and better on them than on any exam.
    """

    router: Version
    validator: Version
    results: dict[str, RoleResult]
    dev: LeftOut


def learn_judges(task: JudgesTask) -> LearnedJudges:
    """Train router and validator, and describe both as versions.

    The validator judges an answer under the category that the router takes its query for, right or wrong. So it learns
    from a dev row under the category that a router takes it for which has not seen it.
    """
    graded = _graded_dev(task)
    router = _learn_router(task)
    category = {} if router.routed is None else _by_id(graded, router.routed)
    asked = [(row, rollout, good) for row, rollout, good in graded if category.get(row.id, row.category)]
    validator = _learn_validator(task, asked, category)
    return LearnedJudges(
        router=_describe(task, "router", router),
        validator=_describe(task, "validator", validator),
        results={"router": router, "validator": validator},
        dev=LeftOut(
            local=_by_id(graded, router.fitted) if router.fitted else {},
            category=category,
            quality=_by_id(asked, validator.fitted) if validator.fitted else {},
        ),
    )


_Graded = Sequence[tuple[LedgerRow, Rollout, bool]]
_Value = TypeVar("_Value")


def _graded_dev(task: JudgesTask) -> _Graded:
    """Return the dev rows whose rollouts are graded, with the grades, in the order in which both heads see them."""
    usable = [row for row in task.dev if row.category and row.example.query_text.strip()]
    found = [(row, task.rollouts[row.id]) for row in usable if row.id in task.rollouts]
    return [(row, rollout, rollout.good) for row, rollout in found if rollout.good is not None]


def _by_id(graded: _Graded, values: Sequence[_Value]) -> dict[str, _Value]:
    return {row.id: value for (row, _, _), value in zip(graded, values, strict=True)}


def _learn_validator(task: JudgesTask, graded: _Graded, category: Mapping[str, str]) -> RoleResult:
    texts = [
        TextRow(row.example.query_text, row.example.response, row.category)
        for row in task.train
        if task.policy.allows(row.example, "validator")
    ]
    answers = [
        GradedRow(row.example.query_text, rollout.text, category.get(row.id, row.category), rollout.statistics, good)
        for row, rollout, good in graded
    ]
    return train_validator(
        task.parents["validator"].folder,
        texts,
        answers,
        task.work / "validator",
        hyper=ValidatorHyper(
            max_seconds=task.validator_seconds, max_pairs=task.validator_pairs, index_rows=task.index_rows
        ),
        seed=task.seed,
        index=[
            IndexRow(row.id, row.example.query_text, row.example.response, row.category)
            for row in task.index or task.train
            if task.policy.allows(row.example, "validator")
        ],
        means=Means(task.device, task.vectors),
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
    parent, hyper, vectors = task.parents["router"], RouterHyper(), task.vectors
    # As it will be served: in the precision that the new version gets.
    served = replace(parent.manifest, config={**parent.manifest.config, "precision": hyper.precision})
    shared = vectors is not None and vectors.serve_router(served, [row.query for row in rows])
    return train_router(
        parent.folder,
        rows,
        task.work / "router",
        hyper=hyper,
        seed=task.seed,
        embed=vectors.embed if vectors is not None and shared else None,
    )


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
