"""Compares two responses to one query: quality of each, likeness of meaning, agreement of facts.

It knows neither transport nor releases, nor which of the two is the better author.
"""

from __future__ import annotations

from dataclasses import dataclass

from shammah_chassis.grading.similarity import find_difference, measure_cosine

from shammah_validator.engine import ValidateItem, ValidatorEngine

# Texts whose numbers, names or negations differ are at most half alike, however close their wording is.
_OTHER_FACTS = 0.5


@dataclass(frozen=True, slots=True)
class Comparison:
    """Qualities are 0 to 1, `cosine` is -1 to 1; `similarity` is the cosine where the facts agree, else half of it."""

    quality_a: float
    quality_b: float
    cosine: float
    same_facts: bool
    similarity: float


def compare_responses(engine: ValidatorEngine, first: ValidateItem, second: ValidateItem) -> Comparison:
    """Compare the responses of two items; blocks for about two inferences.

    An empty response is like nothing: cosine 0, other facts. Raises as `ValidatorEngine.validate`.
    """
    quality_a, quality_b = (validation.quality for validation in engine.validate([first, second]))
    if not first.response.strip() or not second.response.strip():
        return Comparison(quality_a, quality_b, cosine=0.0, same_facts=False, similarity=0.0)
    cosine = measure_cosine(first.response, second.response, engine)
    same_facts = not find_difference(first.response, second.response)
    # A negative cosine is not made smaller by halving it towards 0.
    similarity = cosine if same_facts or cosine < 0 else _OTHER_FACTS * cosine
    return Comparison(quality_a, quality_b, cosine, same_facts, similarity)
