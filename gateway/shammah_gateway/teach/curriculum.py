"""The policy of the offline planner: which categories get how many examples, how hard. Pure, deterministic.

Examples go where the expected gain is, over a floor that is spread evenly (a category that nobody teaches shows
nothing). Failure alone is no reason: what does not improve in two taught rounds is given up, what has no more data, or
only lacks exam rows, is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shammah_gateway.teach.findings import Finding, value_of
from shammah_gateway.teach.settings import Goal, TeachSettings

# Counts that the tool generate_training_data takes at once, and the step in which counts are given.
LEAST, MOST, STEP = 10, 100, 5
EXAMPLES_EACH = 50
EASY_BELOW, HARD_ABOVE = 0.5, 0.85
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


def choose_difficulty(accuracy: float | None) -> str:
    """Return easy while the student fails half of it (or nothing is known), hard once it rarely fails."""
    if accuracy is None or accuracy < EASY_BELOW:
        return "easy"
    return "hard" if accuracy > HARD_ABOVE else "medium"


def plan_lessons(tracks: Sequence[Track], settings: TeachSettings) -> list[Lesson]:
    """Return the lessons of a round, largest first; none when no category is open."""
    taught = [track for track in tracks if track.is_open(settings.goal)]
    if not taught:
        return []
    total = settings.examples or EXAMPLES_EACH * len(taught)
    counts = _share_out(taught, total, settings.floor)
    lessons = [
        Lesson(track.category, part, choose_difficulty(track.finding.accuracy if track.finding else None))
        for track in taught
        for part in _cut(counts[track.category])
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


def _share_out(tracks: Sequence[Track], total: int, floor: int) -> dict[str, int]:
    """Give each its floor, and the rest by expected gain (evenly where nothing is known)."""
    gains = {track.category: max(0.0, track.finding.gain) if track.finding else 0.0 for track in tracks}
    known = all(track.finding is not None for track in tracks)
    rest = max(0, total - floor * len(tracks))
    weights = gains if known and sum(gains.values()) > 0 else dict.fromkeys(gains, 1.0)
    whole = sum(weights.values())
    counts = {}
    for name, weight in weights.items():
        extra = int(rest * weight / whole / STEP) * STEP
        counts[name] = max(LEAST, floor + extra)
    return counts


def _cut(count: int) -> list[int]:
    """Cut a count into what the tool takes at once."""
    parts = []
    while count >= LEAST:
        part = min(MOST, count)
        if 0 < count - part < LEAST:
            # Never leave a rest that the tool refuses.
            part = count - LEAST
        parts.append(part)
        count -= part
    return parts
