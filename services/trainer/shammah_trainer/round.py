"""One round of training, steps 1 to 7 of DESIGN "A round of training": from a plan to a release with its verdict.

Runs in one worker thread on local folders. It knows no event bus, no store and no lease: publishing (step 8)
and acknowledging are the engine's.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from shammah_chassis.manifest import Role
from shammah_chassis.releases import CategoryPolicy, Release
from shammah_generator.model import TOKENIZER_NAME

from shammah_trainer.certify import CategoryEvidence, certify, certify_ladder
from shammah_trainer.evidence import (
    ScoredRow,
    choose_prefilter,
    combine,
    gather_evidence,
    gather_outcomes,
    leave_out,
    make_policies,
    summarise_exam,
)
from shammah_trainer.gate import GateReport, decide
from shammah_trainer.judges import JudgesTask, LearnedJudges, learn_judges
from shammah_trainer.learn_generator import GeneratorTask, LearnedGenerator, learn_generator
from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.phases import Phases
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.publishing import Version
from shammah_trainer.rollouts import Rollout, RolloutSettings, choose_limits, roll_out
from shammah_trainer.round_plan import RoundPlan, categories_of
from shammah_trainer.scoring import Judged, Routed, SimilarityEncoder, judge_responses, route_queries
from shammah_trainer.sft import SftHyper

PHASES = (
    *(("load", 0.03), ("train", 0.42), ("export", 0.06), ("rollouts", 0.25), ("champion", 0.07)),
    *(("judges", 0.13), ("score", 0.02), ("certify", 0.01), ("publish", 0.01)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSettings:
    """What a round may be told. `base_rows`: exam rows per category that release 0 is compared on."""

    alpha: float = 0.05
    delta: float = 0.05
    tolerance_points: float = 3.0
    gate_level: float = 0.05
    sft: SftHyper = field(default_factory=SftHyper)
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    policy: TrainingPolicy = field(default_factory=TrainingPolicy)
    validator_seconds: float = 40.0
    base_rows: int = 50
    text_rows: int = 1000
    threads: int = 2
    device: str = "cpu"
    resume_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundInputs:
    """Where a round starts: its id (the id of the release it makes), the champion with its folders, and the plan."""

    id: str
    work: Path
    champion: Release
    parents: dict[Role, Version]
    plan: RoundPlan
    fence: int


@dataclass(frozen=True, slots=True)
class RoundProduct:
    """A release that is ready to be published, its versions, and the result for people (JSON)."""

    release: Release
    versions: dict[Role, Version]
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Candidate and champion on the exam, and what follows."""

    release: Release
    exam: list[ScoredRow]
    before: list[ScoredRow]
    gate: GateReport


class Round:
    """The steps of one round; make one and call `compute` once."""

    def __init__(self, ledger: Ledger, inputs: RoundInputs, settings: RoundSettings, phases: Phases) -> None:
        """Nothing happens yet."""
        self._ledger = ledger
        self._in = inputs
        self._settings = settings
        self._phases = phases
        self.scored: dict[str, list[ScoredRow]] = {}  # by part, as the new release sees them; after `compute`
        self._similarity = SimilarityEncoder(
            inputs.parents["router"].folder, inputs.parents["router"].manifest, threads=settings.threads
        )

    def compute(self, taught_elsewhere: LearnedGenerator | None = None) -> RoundProduct:
        """Run steps 1 to 7; a generator that was taught on another machine is taken as it is (steps 1 to 3 are done).

        Raises:
            ShammahError: by name what went wrong (diverged, parity, a full disk, stopped); nothing was published.
        """
        started = time.time()
        torch.set_num_threads(self._settings.threads)
        try:
            generator = taught_elsewhere or learn_generator(self._generator_task(), self._phases)
            taught = self._ledger.rows("part = 'train'")
            plan = self._in.plan
            limits = choose_limits(
                taught,
                [*plan.dev, *plan.exam],
                tokenizer=generator.version.folder / TOKENIZER_NAME,
                longest=self._settings.rollouts.longest,
            )
            rollouts = self._roll_out_candidate(generator.version, limits)
            judges = self._learn_judges(taught, rollouts)
            judged = self._judge(generator.version, judges, rollouts, limits)
        finally:
            self._similarity.close()
        versions: dict[Role, Version] = {
            "generator": generator.version,
            "router": judges.router,
            "validator": judges.validator,
        }
        result = self._describe(generator, judges, judged, started)
        return RoundProduct(judged.release, versions, result)

    def _generator_task(self) -> GeneratorTask:
        return GeneratorTask(
            parent=self._in.parents["generator"],
            out=self._in.work / "generator",
            plan=self._in.plan,
            policy=self._settings.policy,
            hyper=self._settings.sft,
            device=torch.device(self._settings.device),
            resume_dir=self._settings.resume_dir,
            threads=self._settings.threads,
        )

    def _roll_out_candidate(self, version: Version, limits: dict[str, int]) -> dict[str, Rollout]:
        rows = [*self._in.plan.dev, *self._in.plan.exam]
        with self._phases.run("rollouts", f"answering {len(rows)} dev and exam rows") as advance:
            return roll_out(
                self._ledger,
                version=version.manifest.version,
                folder=version.folder,
                rows=rows,
                limits=limits,
                settings=self._settings.rollouts,
                similarity=self._similarity,
                progress=advance,
            )

    def _roll_out_champion(self, limits: dict[str, int]) -> dict[str, Rollout]:
        """Grade the champion on the same exam rows; release 0 on a few of each category only, as it serves none."""
        rows: Sequence[LedgerRow] = self._in.plan.exam
        if self._in.champion.verdict == "base":
            rows = first_of_each(rows, self._settings.base_rows)
        parent = self._in.parents["generator"]
        with self._phases.run("champion", f"answering {len(rows)} exam rows by the champion") as advance:
            return roll_out(
                self._ledger,
                version=parent.manifest.version,
                folder=parent.folder,
                rows=rows,
                limits=limits,
                settings=self._settings.rollouts,
                similarity=self._similarity,
                progress=advance,
            )

    def _learn_judges(self, taught: Sequence[LedgerRow], rollouts: dict[str, Rollout]) -> LearnedJudges:
        plan = self._in.plan
        # This round's rows for certain, and a sample of all that was ever taught, so that nothing is forgotten.
        chosen = {row.id: row for row in (*plan.new, *plan.replay[: len(plan.new)])}
        rng = random.Random(plan.seed)
        for row in rng.sample(list(taught), min(len(taught), self._settings.text_rows)):
            chosen.setdefault(row.id, row)
        task = JudgesTask(
            parents=self._in.parents,
            work=self._in.work,
            train=tuple(chosen.values()),
            dev=plan.dev,
            rollouts=rollouts,
            policy=self._settings.policy,
            position=plan.position,
            seed=plan.seed,
            validator_seconds=self._settings.validator_seconds,
            index=tuple(taught),
            device=self._settings.device,
        )
        with self._phases.run("judges", "training router and validator"):
            return learn_judges(task)

    def _judge(
        self, generator: Version, judges: LearnedJudges, rollouts: dict[str, Rollout], limits: dict[str, int]
    ) -> _Judgement:
        plan, champion = self._in.plan, self._in.champion
        before_rollouts = self._roll_out_champion(limits)
        with self._phases.run("score", "scoring dev and exam rows"):
            dev = self.score(plan.dev, rollouts, judges.router, judges.validator)
            dev = leave_out(dev, dev_local=judges.dev_local, dev_quality=judges.dev_quality)
            exam = self.score(plan.exam, rollouts, judges.router, judges.validator)
            before = self._score_champion(before_rollouts)
            self.scored = {"dev": dev, "exam": exam}
        with self._phases.run("certify", "certifying and comparing with the champion"):
            prefilter = choose_prefilter(dev)
            evidence = gather_evidence(dev, exam, prefilter=prefilter, limits=limits)
            policies = self._make_policies(judges, evidence, exam, limits, prefilter=prefilter)
            draft = self._make_release(generator, judges, policies, prefilter=prefilter)
            paired = frozenset(item.row.id for item in before) & frozenset(item.row.id for item in exam)
            gate = decide(
                gather_outcomes(before, champion, paired),
                gather_outcomes(exam, draft, paired),
                tolerance_points=self._settings.tolerance_points,
                level=self._settings.gate_level,
            )
        return _Judgement(_finish(draft, gate), exam, before, gate)

    def _score_champion(self, rollouts: dict[str, Rollout]) -> list[ScoredRow]:
        rows = [row for row in self._in.plan.exam if row.id in rollouts]
        if any(policy.threshold is not None for policy in self._in.champion.categories.values()):
            return self.score(rows, rollouts, self._in.parents["router"], self._in.parents["validator"])
        # It answers nothing locally, whatever its judges would say.
        unknown = Routed(0.0, "", truncated=False)
        return combine(rows, rollouts, {row.id: unknown for row in rows}, {})

    def score(
        self, rows: Sequence[LedgerRow], rollouts: dict[str, Rollout], router: Version, validator: Version
    ) -> list[ScoredRow]:
        """Return the graded rows with what these judges say of them, as the cascade would see them."""
        threads = self._settings.threads
        rows = [row for row in rows if row.id in rollouts]
        queries = [row.example.query_text for row in rows]
        routed = route_queries(router.folder, router.manifest, queries, threads=threads)
        routes: dict[str, Routed] = {row.id: route for row, route in zip(rows, routed, strict=True)}
        # Only what the router knows a category for is ever judged.
        known = [row for row in rows if routes[row.id].category]
        items = [
            (row.example.query_text, rollouts[row.id].text, routes[row.id].category, rollouts[row.id].statistics)
            for row in known
        ]
        found = judge_responses(validator.folder, validator.manifest, items, threads=threads)
        judged: dict[str, Judged] = {row.id: entry for row, entry in zip(known, found, strict=True)}
        return combine(rows, rollouts, routes, judged)

    def _make_policies(
        self,
        judges: LearnedJudges,
        evidence: dict[str, CategoryEvidence],
        exam: Sequence[ScoredRow],
        limits: dict[str, int],
        *,
        prefilter: float,
    ) -> dict[str, CategoryPolicy]:
        alpha, delta = self._settings.alpha, self._settings.delta
        certificates = certify(evidence, alpha=alpha, delta=delta)
        ladders = certify_ladder(evidence, certificates, alpha=alpha, delta=delta)
        labels = judges.router.manifest.labels
        counts = self._ledger.count_rows(after=self._in.plan.position)
        return make_policies(
            certificates,
            exam,
            labels=labels,
            limits=limits,
            ladders=ladders,
            prefilter=prefilter,
            trained={name: entry["train"] - entry["new_train"] for name, entry in counts.items()},
        )

    def _make_release(
        self,
        generator: Version,
        judges: LearnedJudges,
        policies: dict[str, CategoryPolicy],
        *,
        prefilter: float,
    ) -> Release:
        champion = self._in.champion
        return Release(
            id=self._in.id,
            parent=champion.id,
            created_at=time.time(),
            router=judges.router.manifest.version,
            generator=generator.manifest.version,
            validator=judges.validator.manifest.version,
            verdict="undecided",
            categories=policies,
            prefilter=prefilter,
            alpha=self._settings.alpha,
            delta=self._settings.delta,
            position=self._in.plan.position,
            precision=self._settings.rollouts.precision,
            fence=self._in.fence,
            ancestry=(*champion.ancestry, champion.id),
        )

    def _describe(
        self, generator: LearnedGenerator, judges: LearnedJudges, judged: _Judgement, started: float
    ) -> dict[str, Any]:
        plan, release = self._in.plan, judged.release
        tuned = generator.result
        losses = {role: {"before": r.loss_before, "after": r.loss_after} for role, r in judges.results.items()}
        if tuned is not None:
            losses["generator"] = {"before": tuned.loss_before, "after": tuned.loss_after}
        labels = categories_of([*plan.exam, *plan.dev])
        return {
            "release": release.id,
            "parent": release.parent,
            "verdict": release.verdict,
            "reasons": list(release.reasons),
            "losses": losses,
            "exam": {
                "before": summarise_exam(judged.before, self._in.champion, labels),
                "after": summarise_exam(judged.exam, release, labels),
            },
            "examples_trained": len(plan.train) if tuned else 0,
            "new_rows": len(plan.new),
            "replay_rows": len(plan.train) - len(plan.new),
            "dev_rows": len(plan.dev),
            "exam_rows": len(plan.exam),
            "position": plan.position,
            "prefilter": release.prefilter,
            "alpha": release.alpha,
            "delta": release.delta,
            "duration_seconds": round(time.time() - started, 3),
            "phase_seconds": dict(self._phases.seconds),
            "device": self._settings.device,
            "resident_bytes_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def _finish(draft: Release, gate: GateReport) -> Release:
    """Return the draft with the gate's verdict, reasons and report."""
    return replace(draft, verdict=gate.verdict, reasons=tuple(gate.reasons), report=gate.as_dict())


def first_of_each(rows: Sequence[LedgerRow], most: int) -> list[LedgerRow]:
    """Return at most `most` rows of each category; the rows are in random order already (by id)."""
    taken: dict[str, int] = {}
    chosen = []
    for row in rows:
        taken[row.category] = taken.get(row.category, 0) + 1
        if taken[row.category] <= most:
            chosen.append(row)
    return chosen
