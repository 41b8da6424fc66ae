"""The policy of the offline planner: which categories are open, and their lessons by the plan. Pure, deterministic.

What does not improve in two taught rounds is given up, what has no more data, or only lacks exam rows, is left. Over
the others `teaching_plan` spreads the examples, as for analyze_model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shammah_chassis.learning_curve import Curve, Prospect

from shammah_gateway.teach.findings import Finding, value_of
from shammah_gateway.teach.settings import Goal, TeachSettings
from shammah_gateway.teaching_plan import choose_difficulty, cut_count, plan_examples

# A rise of accuracy or of the local share that counts as one.
RISE = 0.02
FLAT_ROUNDS = 2
# From this accuracy on it is evidence that is missing, not teaching.
GOOD_ENOUGH = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What the planner remembers of a category: the newest finding, rounds without a rise, and whether data is left."""

    category: str
    finding: Finding | None = None
    flat_rounds: int = 0
    exhausted: bool = False
    taught: int = 0

    @property
    def given_up(self) -> bool:
        """Say whether two taught rounds in a row brought nothing."""
        return self.flat_rounds >= FLAT_ROUNDS

    @property
    def needs_exam(self) -> bool:
        """Say whether only exam rows keep it from being certified."""
        found = self.finding
        return found is not None and not found.certified and found.rows_missing > 0 and found.accuracy >= GOOD_ENOUGH

    def reached(self, goal: Goal) -> bool:
        """Say whether the category alone is where the goal wants the mean to be."""
        return self.finding is not None and value_of(self.finding, goal) >= goal.value

    def is_open(self, goal: Goal) -> bool:
        """Say whether teaching it may bring the goal nearer."""
        lacks_rows = goal.measure == "local_share" and self.needs_exam
        return not (self.given_up or self.exhausted or lacks_rows or self.reached(goal))


@dataclass(frozen=True, slots=True)
class Lesson:
    """One call of generate_training_data."""

    category: str
    count: int
    difficulty: str


def plan_lessons(tracks: Sequence[Track], settings: TeachSettings) -> list[Lesson]:
    """Return the lessons of a round, largest first; none when no category is open."""
    taught = [track for track in tracks if track.is_open(settings.goal)]
    if not taught:
        return []
    # All of it is spent: whether teaching ends is the goal's affair here, and that of what was given up.
    counts = plan_examples(_look_ahead(taught), settings.examples, least=settings.floor, worth=0.0)
    lessons = [
        Lesson(track.category, part, choose_difficulty(track.finding.accuracy if track.finding else None))
        for track in taught
        for part in cut_count(counts[track.category])
    ]
    return sorted(lessons, key=lambda lesson: (-lesson.count, lesson.category))


def note_analysis(track: Track, found: Finding | None, *, taught: int, exam_rise: float = 0.0) -> Track:
    """Return the track after a round that taught it `taught` examples; `exam_rise` is of its accuracy on the exam."""
    before, flat = track.finding, track.flat_rounds
    if taught and before is not None and found is not None:
        rise = max(found.accuracy - before.accuracy, found.local_share - before.local_share, exam_rise)
        flat = 0 if rise >= RISE else flat + 1
    return replace(track, finding=found or before, flat_rounds=flat, taught=track.taught + taught)


def pick_worst(tracks: Mapping[str, Track], count: int) -> list[str]:
    """Return the categories with the lowest accuracy, worst first."""
    known = [track for track in tracks.values() if track.finding is not None]
    ranked = sorted(known, key=lambda track: (track.finding.accuracy if track.finding else 0.0, track.category))
    return [track.category for track in ranked[:count]]


def _look_ahead(tracks: Sequence[Track]) -> dict[str, Prospect]:
    """Return what is known of each; one that was never tested may be anything, and counts as the mean of the others."""
    known = [track.finding.share for track in tracks if track.finding is not None and track.finding.share > 0]
    mean = sum(known) / len(known) if known else 1.0 / len(tracks)
    prospects = {}
    for track in tracks:
        found = track.finding
        points, rows, share = (found.points, found.rows, found.share) if found is not None else ((), track.taught, mean)
        prospects[track.category] = Prospect(Curve(points), rows, share or mean)
    return prospects
