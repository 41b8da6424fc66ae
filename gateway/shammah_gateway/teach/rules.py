"""The offline planner: analyse, teach where gain is expected, train, look at the worst, again. No model decides here.

The same results give the same calls, so that a resumed session finds its way back through the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from shammah_gateway.teach.curriculum import Lesson, Track, note_analysis, pick_worst, plan_lessons
from shammah_gateway.teach.findings import Finding, describe_exam_needs, list_exam_needs, measure, read_findings
from shammah_gateway.teach.session import Outcome, Session

PROBED_CATEGORIES, PROBES_EACH = 2, 2
# Errors that say nothing about the category: the teacher, or a part, is away.
_AWAY = frozenset({"teacher_unavailable", "teacher_timeout", "teacher_auth", "unavailable", "overloaded", "late"})


@dataclass(slots=True)
class RulesPlanner:
    """Teaches one session; `tracks` by category, `rounds` that were trained."""

    session: Session
    tracks: dict[str, Track] = field(default_factory=dict)
    rounds: int = 0

    async def run(self) -> NoReturn:
        """Teach until the session ends.

        Raises:
            TeachingEndError: the end, with its state and reason.
        """
        await self._look_first()
        while True:
            self._check_goal()
            lessons = plan_lessons(self._chosen(), self.session.settings)
            if not lessons:
                await self._close_down()
                continue
            if self.rounds >= self.session.settings.rounds:
                reason = f"{self.rounds} rounds are done; for more: --resume {self.session.id} --rounds N"
                self.session.finish("rounds", reason)
            taught = await self._teach(lessons)
            if any(taught.values()):
                self.rounds += 1
                await self._train(taught)
                await self._probe()

    async def _look_first(self) -> None:
        """Analyse, or start evenly where nothing is known yet."""
        names = self.session.settings.categories
        while True:
            outcome = await self._ask_analysis()
            if outcome.ok:
                self._note(outcome, {}, {})
                return
            if outcome.error_code == "precondition" and names:
                self.session.say(f"nothing is known yet: an even start over {len(names)} categories")
                self.tracks = {name: Track(category=name) for name in names}
                return
            hint = "; name what to teach: --categories a,b" if outcome.error_code == "precondition" else ""
            self.session.finish("failed", f"the analysis failed: {outcome.error}{hint}")

    async def _ask_analysis(self) -> Outcome:
        settings = self.session.settings
        chosen = self._chosen()
        count = settings.count_tests(len(chosen) or len(settings.categories))
        arguments: dict[str, Any] = {"test_count": count}
        # A category that was never tested may be unknown to the trainer, which refuses it by name.
        if settings.categories and chosen and all(track.finding is not None for track in chosen):
            arguments["categories"] = [track.category for track in chosen]
        return await self.session.call("analyze_model", arguments)

    async def _analyse(self, taught: Mapping[str, int], rises: Mapping[str, float]) -> None:
        while True:
            outcome = await self._ask_analysis()
            if outcome.ok:
                self._note(outcome, taught, rises)
                return
            self.session.finish("failed", f"the analysis failed: {outcome.error}")

    def _note(self, outcome: Outcome, taught: Mapping[str, int], rises: Mapping[str, float]) -> None:
        found = read_findings(outcome.value)
        for name in sorted({*found, *self.tracks, *self.session.settings.categories}):
            track = self.tracks.get(name, Track(category=name))
            self.tracks[name] = note_analysis(
                track, found.get(name), taught=taught.get(name, 0), exam_rise=rises.get(name, 0.0)
            )

    def _chosen(self) -> list[Track]:
        wanted = self.session.settings.categories
        return [self.tracks[name] for name in sorted(self.tracks) if not wanted or name in wanted]

    def _findings(self) -> dict[str, Finding]:
        return {track.category: track.finding for track in self._chosen() if track.finding is not None}

    def _check_goal(self) -> None:
        goal = self.session.settings.goal
        reached = measure(self._findings(), self.session.settings.categories, goal)
        if reached >= goal.value:
            self.session.finish("goal", f"the goal {goal} is reached: {reached:.2f}")

    async def _teach(self, lessons: Sequence[Lesson]) -> dict[str, int]:
        """Have the lessons made; returns the queued examples by category."""
        taught: dict[str, int] = {}
        error = ""
        for lesson in lessons:
            if self.tracks[lesson.category].exhausted:
                continue
            arguments = {"category": lesson.category, "count": lesson.count, "difficulty": lesson.difficulty}
            outcome = await self.session.call("generate_training_data", arguments)
            if outcome.ok:
                queued = int(outcome.value.get("queued", 0))
                taught[lesson.category] = taught.get(lesson.category, 0) + queued
                self._mark(lesson.category, exhausted=queued == 0)
            else:
                error = outcome.error
                self.session.say(f"{lesson.category}: {outcome.error}")
                self._mark(lesson.category, exhausted=outcome.error_code not in _AWAY)
        if error and not taught:
            self.session.finish("failed", f"the teacher made nothing: {error}")
        return taught

    def _mark(self, category: str, *, exhausted: bool) -> None:
        self.tracks[category] = replace(self.tracks[category], exhausted=exhausted)

    async def _train(self, taught: Mapping[str, int]) -> None:
        """Train what was taught, and analyse again."""
        while True:
            outcome = await self.session.call("train", {"wait": True})
            if outcome.ok or outcome.error_code == "precondition":
                break
            self.session.finish("failed", f"the round failed: {outcome.error}")
        if not outcome.ok:
            self.session.say(f"no round: {outcome.error}")
        rises = {row["category"]: float(row["after"]) - float(row["before"]) for row in outcome.value.get("exam", [])}
        await self._analyse(taught, rises)

    async def _probe(self) -> None:
        """Ask a few queries of the worst categories, to show in the report how they answer."""
        worst = pick_worst({track.category: track for track in self._chosen()}, PROBED_CATEGORIES)
        for category in worst:
            mine = [probe for probe in self.session.settings.probes if probe.category == category]
            for probe in mine[:PROBES_EACH]:
                await self.session.call("query_local_model", {"query": probe.query})
                arguments = {"query": probe.query}
                if probe.reference:
                    arguments["teacher_response"] = probe.reference
                await self.session.call("compare_responses", arguments)

    async def _close_down(self) -> None:
        """End where nothing is left to teach; after a resume, certify and look again: the user may have helped."""
        goal = self.session.settings.goal
        needs = list_exam_needs(self._findings()) if goal.measure == "local_share" else {}
        why = "the teacher has no more examples" if any(track.exhausted for track in self._chosen()) else ""
        if any(track.given_up for track in self._chosen()):
            why = f"{why}, and what was taught" if why else "what was taught"
            why += " did not improve in two rounds"
        reason = "; ".join(text for text in (why, describe_exam_needs(needs)) if text) or "nothing is left to teach"
        self.session.finish("needs_exam" if needs else "no_data" if "no more" in why else "no_gain", reason)
        self.session.say("resumed: certifying again with what is there now")
        for name, track in sorted(self.tracks.items()):
            self.tracks[name] = replace(track, exhausted=False, flat_rounds=0)
        await self._train({})
