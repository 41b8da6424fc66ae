"""One round of training, steps 1 to 7 of DESIGN "A round of training": from a plan to a release with its verdict.

Runs in one worker thread on local folders. It knows no event bus, no store and no lease: publishing (step 8)
and acknowledging are the engine's.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from shammah_chassis.manifest import Role
from shammah_chassis.releases import CategoryPolicy, Release
from shammah_generator.model import TOKENIZER_NAME

from shammah_trainer.ahead import Ahead
from shammah_trainer.certify import CategoryEvidence, certify, certify_ladder
from shammah_trainer.encoders.query_vectors import QueryVectors
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
from shammah_trainer.gate import decide
from shammah_trainer.judges import JudgesTask, LearnedJudges, learn_judges
from shammah_trainer.later import Later
from shammah_trainer.learn_generator import GeneratorTask, LearnedGenerator, learn_generator
from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.phases import Phases
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.publishing import Version
from shammah_trainer.rollouts import Rollout, RolloutSettings, choose_limits, read_rollouts, roll_out
from shammah_trainer.round_plan import RoundPlan, categories_of, find_taught, first_of_each
from shammah_trainer.scorer import Scorer
from shammah_trainer.scoring import Routed, SimilarityEncoder
from shammah_trainer.sft import SftHyper
from shammah_trainer.verdict import conclude, withdraw

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
    validator_pairs: int = 800
    index_rows: int = 2000
    base_rows: int = 50
    text_rows: int = 1000
    threads: int = 2
    device: str = "cpu"
    resume_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundInputs:
    """Where a round starts: its id (the id of the release it makes), the champion with its folders, and the plan.

    `erases`: the champion's index has rows that were forgotten since. `read_withdrawn` gives the champion's categories
    whose promise audits have broken.
    """

    id: str
    work: Path
    champion: Release
    parents: dict[Role, Version]
    plan: RoundPlan
    fence: int
    erases: bool = False
    read_withdrawn: Callable[[], frozenset[str]] = frozenset


@dataclass(frozen=True, slots=True)
class RoundProduct:
    """A release that is ready to be published, its versions, and the result for people (JSON)."""

    release: Release
    versions: dict[Role, Version]
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Candidate and champion on the exam, the latter as it serves now, and what follows."""

    release: Release
    exam: list[ScoredRow]
    before: list[ScoredRow]
    champion: Release


class Round:
    """The steps of one round; make one and call `compute` once."""

    def __init__(self, ledger: Ledger, inputs: RoundInputs, settings: RoundSettings, phases: Phases) -> None:
        """Nothing happens yet."""
        self._ledger = ledger
        self._in = inputs
        self._settings = settings
        self._phases = phases
        self.scored: dict[str, list[ScoredRow]] = {}  # by part, as the new release sees them; after `compute`
        router, validator = inputs.parents["router"], inputs.parents["validator"]
        self._similarity = SimilarityEncoder(router.folder, router.manifest, threads=settings.threads)
        self._vectors = QueryVectors((router.folder, router.manifest), validator.folder, threads=settings.threads)
        # With a GPU the host is idle for most of a round; without one, all that is begun early takes its cores.
        self._early = settings.device != "cpu"
        self._ahead = Ahead(settings.rollouts)
        self._scorer = Scorer(self._vectors, threads=settings.threads, device=settings.device)

    def compute(self, taught_elsewhere: LearnedGenerator | None = None) -> RoundProduct:
        """Run steps 1 to 7; a generator that was taught on another machine is taken as it is (steps 1 to 3 are done).

        Raises:
            ShammahError: by name what went wrong (diverged, parity, a full disk, stopped); nothing was published.
        """
        started = time.time()
        torch.set_num_threads(self._settings.threads)
        plan, parent = self._in.plan, self._in.parents["generator"]
        taught = find_taught(self._ledger, plan)
        longest, max_tokens = self._settings.rollouts.longest, self._settings.sft.max_tokens
        limits = choose_limits(
            taught, plan.judges, tokenizer=parent.folder / TOKENIZER_NAME, max_tokens=max_tokens, longest=longest
        )
        generator: LearnedGenerator | None = None
        embedding = self._begin_early(limits)
        try:
            generator = taught_elsewhere or learn_generator(self._generator_task(), self._phases)
            rollouts = self._roll_out_candidate(generator.version, limits)
            before = self._roll_out_champion(limits)
            judges = self._learn_judges(taught, rollouts)
            judged = self._judge(generator.version, judges, (rollouts, before), limits)
            generator = generator.confirm()
        finally:
            self._close(generator, embedding)
        versions: dict[Role, Version] = {
            "generator": generator.version,
            "router": judges.router,
            "validator": judges.validator,
        }
        result = self._describe(generator, judges, judged, started)
        return RoundProduct(judged.release, versions, result)

    def _begin_early(self, limits: dict[str, int]) -> Later[object] | None:
        """With a GPU, load the champion where it will be asked, and embed the queries, beside the training."""
        if not self._early:
            return None
        plan, champion = self._in.plan, self._in.parents["generator"]
        rows = self._champion_rows()
        known = read_rollouts(self._ledger, version=champion.manifest.version, rows=rows, limits=limits)
        if len(known) < len(rows):
            self._ahead.begin(champion.folder)
        queries = [row.example.query_text for row in (*plan.new, *plan.replay, *plan.dev, *plan.exam)]
        return Later(lambda: self._vectors.embed(queries), name="vectors")

    def _close(self, generator: LearnedGenerator | None, embedding: Later[object] | None) -> None:
        """End everything that was begun, whatever came of the round."""
        for under_way in (embedding, generator.parity if generator else None):
            if under_way is not None:
                under_way.close()
        self._ahead.close()
        self._vectors.close()
        self._similarity.close()

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
            check_behind=self._early,
            written=self._ahead.begin if self._early else lambda folder: None,
        )

    def _roll_out_candidate(self, version: Version, limits: dict[str, int]) -> dict[str, Rollout]:
        rows = [*self._in.plan.dev, *self._in.plan.exam]
        with self._phases.run("rollouts", f"answering {len(rows)} dev and exam rows") as advance:
            return roll_out(
                self._ledger,
                version=version.manifest.version,
                folder=partial(self._ahead.load, version.folder),
                rows=rows,
                limits=limits,
                settings=self._settings.rollouts,
                similarity=self._similarity,
                progress=advance,
            )

    def _champion_rows(self) -> Sequence[LedgerRow]:
        """Return the exam rows that the champion answers: of release 0 a few of each category, as it serves none."""
        if self._in.champion.verdict == "base":
            return first_of_each(self._in.plan.exam, self._settings.base_rows)
        return self._in.plan.exam

    def _roll_out_champion(self, limits: dict[str, int]) -> dict[str, Rollout]:
        """Grade the champion on the same exam rows; what it answered in an earlier round is not answered again."""
        rows = self._champion_rows()
        parent = self._in.parents["generator"]
        with self._phases.run("champion", f"answering {len(rows)} exam rows by the champion") as advance:
            return roll_out(
                self._ledger,
                version=parent.manifest.version,
                folder=partial(self._ahead.load, parent.folder),
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
            validator_pairs=self._settings.validator_pairs,
            index_rows=self._settings.index_rows,
            index=tuple(taught),
            device=self._settings.device,
            vectors=self._vectors,
        )
        with self._phases.run("judges", "training router and validator"):
            return learn_judges(task)

    def _judge(
        self,
        generator: Version,
        judges: LearnedJudges,
        answers: tuple[dict[str, Rollout], dict[str, Rollout]],
        limits: dict[str, int],
    ) -> _Judgement:
        """Score, certify and decide; `answers` of the candidate, and of the champion."""
        plan, champion = self._in.plan, self._in.champion
        rollouts, before_rollouts = answers
        with self._phases.run("score", "scoring dev and exam rows"):
            versions = (judges.router, judges.validator)
            dev, exam = self._scorer.score_both(plan.dev, plan.exam, rollouts, versions, told=judges.dev_quality)
            dev = leave_out(dev, dev_local=judges.dev_local, dev_quality=judges.dev_quality)
            before = self._score_champion(before_rollouts)
            self.scored = {"dev": dev, "exam": exam}
        with self._phases.run("certify", "certifying and comparing with the champion"):
            prefilter = choose_prefilter(dev)
            evidence = gather_evidence(dev, exam, prefilter=prefilter, limits=limits)
            policies = self._make_policies(judges, evidence, exam, limits, prefilter=prefilter)
            draft = self._make_release(generator, judges, policies, prefilter=prefilter)
            paired = frozenset(item.row.id for item in before) & frozenset(item.row.id for item in exam)
            withdrawn = self._in.read_withdrawn().intersection(champion.categories)
            serving = withdraw(champion, withdrawn)
            gate = decide(
                gather_outcomes(before, serving, paired),
                gather_outcomes(exam, withdraw(draft, withdrawn), paired),
                tolerance_points=self._settings.tolerance_points,
                level=self._settings.gate_level,
            )
        release = conclude(draft, gate, erases=self._in.erases, withdrawn=withdrawn)
        return _Judgement(release, exam, before, serving)

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
        return self._scorer.score(rows, rollouts, (router, validator))

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
                "before": summarise_exam(judged.before, judged.champion, labels),
                "after": summarise_exam(judged.exam, release, labels),
            },
            "examples_trained": max(0, len(plan.train) - tuned.dropped) if tuned else 0,
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
