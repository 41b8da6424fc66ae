"""The plan of a round of teaching: how many examples of each category, how hard, and what they may bring.

One plan for `analyze_model`, which reports it, and for `generate_training_data` and `shammah teach`, which spend it.
Counts are `shammah_chassis.learning_curve.allocate`: an even floor, the rest by the upper bound of the gain in
certified share for each example, never by failure alone. It ranks categories; it promises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from shammah_chassis.learning_curve import Prospect, allocate, measure_worth

# Counts that the tool generate_training_data takes at once.
LEAST, MOST = 10, 100
EXAMPLES_EACH = 50
"""Examples of a round for each category, where nobody says how many."""
FLOOR = 0.1
"""The part of a budget that is spread evenly, where that is more than `LEAST` each."""
# A hundred examples must be able to raise the certified share of all queries by .8 points to be worth their price.
WORTH = 0.008 / 100
EASY_BELOW, HARD_ABOVE = 0.5, 0.85
# For how many more examples gains are told.
GAIN_ROWS = 100


def plan_examples(
    prospects: Mapping[str, Prospect], budget: int = 0, *, least: int = LEAST, worth: float = WORTH
) -> dict[str, int]:
    """Return how many examples of each category a round should have.

    They add up to `budget` (0: 50 each; at least `least` each, which is what one call of the tool takes), or to less
    where nothing more is worth its price: a step is, if each of its examples may raise the certified share by `worth`.
    What can't be learned gets the floor; where no category is worth anything, all get 0.
    """
    if not prospects or max(map(measure_worth, prospects.values())) < worth:
        return dict.fromkeys(prospects, 0)
    total = max(budget or EXAMPLES_EACH * len(prospects), least * len(prospects))
    floor = max(least, int(FLOOR * total / len(prospects)))
    return allocate(prospects, total, floor=0.0, least=floor, worth=worth)


def is_worth(prospect: Prospect) -> bool:
    """Say whether a category is worth more than the floor."""
    return measure_worth(prospect) >= WORTH


def expected_gain(prospect: Prospect, more: int = GAIN_ROWS) -> float:
    """Return the expected rise of the overall share of good local answers by `more` examples, 0 to 1."""
    return prospect.share * prospect.curve.gain(prospect.rows, more)


def choose_difficulty(accuracy: float | None) -> str:
    """Return easy while the student fails half of it (or nothing is known), hard once it rarely fails."""
    if accuracy is None or accuracy < EASY_BELOW:
        return "easy"
    return "hard" if accuracy > HARD_ABOVE else "medium"


def cut_count(count: int) -> list[int]:
    """Cut a count into what the tool takes at once; less than it takes at least is left out."""
    parts = []
    while count >= LEAST:
        part = min(MOST, count)
        if 0 < count - part < LEAST:
            # Never leave a rest that the tool refuses.
            part = count - LEAST
        parts.append(part)
        count -= part
    return parts
