"""Step 5 of a round: train validator and router from the champion's, on teacher texts and graded dev rollouts.

It knows which rows may teach which judge; how they learn is in `encoders`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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
from shammah_trainer.later import Later
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

    `dev_local` and `dev_quality`: by id of a graded dev row, what the heads say of it when they have not seen it. The
    served heads were fitted on these very rows, and would look surer and better on them than on any exam.
    """

    router: Version
    validator: Version
    results: dict[str, RoleResult]
    dev_local: Mapping[str, float]
    dev_quality: Mapping[str, float]


def learn_judges(task: JudgesTask) -> LearnedJudges:
    """Train validator and router, and describe both as versions.

    Where the validator has a GPU, the router is trained beside it; on a CPU they would take each other's cores.
    """

    def make(role: Role) -> tuple[RoleResult, Version]:
        result = _learn_validator(task) if role == "validator" else _learn_router(task)
        return result, _describe(task, role, result)

    if task.device == "cpu":
        (validator, validator_version), (router, router_version) = make("validator"), make("router")
    else:
        beside = Later(lambda: make("router"), name="router")
        try:
            validator, validator_version = make("validator")
            router, router_version = beside.take()
        finally:
            beside.close()
    return LearnedJudges(
        router=router_version,
        validator=validator_version,
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
