"""Grader `similarity`: embedding cosine, and equal numbers, negations and names, which embeddings hardly see.

It knows English only as far as its two word lists go; it owns no model.
"""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np

from shammah_chassis.examples import Example
from shammah_chassis.grading.grade import Grade
from shammah_chassis.grading.numbers import find_numbers
from shammah_chassis.grading.protocols import SimilarityModel

MIN_COSINE = 0.85
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?:^|[.!?:\n])\s*[\"'(\[*\-\u2022]*\s*$")
# "one" is left out: it is a pronoun as often as a number.
_NUMBER_WORDS = {
    **{"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15},
    **{"sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20},
    **{"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80},
    **{"ninety": 90, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9},
}
_NEGATIONS = {
    **dict.fromkeys(("not", "cannot", "cant", "dont", "doesnt", "isnt", "wont"), "not"),
    **dict.fromkeys(("no", "none", "nothing", "nobody"), "no"),
    **dict.fromkeys(("neither", "nor"), "nor"),
    **dict.fromkeys(("never",), "never"),
    **dict.fromkeys(("without",), "without"),
}
# Words that begin sentences with a capital and are no names.
_STARTERS = frozenset(
    {"a", "an", "the", "this", "that", "these", "those", "it", "its", "he", "she", "they", "we"}
    | {"you", "i", "his", "her", "their", "our", "your", "my", "there", "here", "in", "on", "at"}
    | {"by", "for", "from", "to", "of", "with", "as", "if", "when", "while", "where", "what"}
    | {"which", "who", "how", "why", "because", "since", "after", "before", "and", "but", "or"}
    | {"so", "then", "also", "however", "yes", "no", "not", "is", "are", "was", "were", "do"}
    | {"does", "did", "can", "could", "will", "would", "should", "may", "might", "have", "has"}
    | {"had", "one", "some", "many", "most", "all", "each", "every", "both", "first", "second"}
    | {"finally", "sure"}
)


def grade_similarity(response: str, example: Example, model: SimilarityModel | None) -> Grade:
    """Good when the cosine is at least .85 and numbers, negations and names agree ("4" is not "5").

    A difference in those is bad without a model; otherwise no model means no evidence.
    """
    if not example.reference.strip():
        return Grade(None, example.grader, "the example has no reference")
    difference = find_difference(response, example.reference)
    if difference:
        return Grade(False, example.grader, difference)
    if model is None:
        return Grade(None, example.grader, "no similarity model was given")
    value = measure_cosine(response, example.reference, model)
    return Grade(value >= MIN_COSINE, example.grader, f"cosine {value:.3f}, needs {MIN_COSINE}")


def measure_cosine(left: str, right: str, model: SimilarityModel) -> float:
    """Return the cosine of the two embeddings, in [-1, 1]; 0 when one of them has no length."""
    first, second = np.asarray(model.embed([left, right]), dtype=np.float64)
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length > 0 else 0.0


def find_difference(left: str, right: str) -> str:
    """Return in words how the numbers, negations or names of two texts differ; "" when they agree."""
    if _numbers(left) != _numbers(right):
        return "the numbers differ"
    if _negations(left) != _negations(right):
        return "the negations differ"
    missing = _missing_names(left, right) | _missing_names(right, left)
    return f"the names differ: {', '.join(sorted(missing)[:5])}" if missing else ""


def _numbers(text: str) -> set[Decimal]:
    words = (_NUMBER_WORDS.get(word.lower()) for word in _WORD.findall(text))
    return {*find_numbers(text), *(Decimal(value) for value in words if value is not None)}


def _negations(text: str) -> set[str]:
    words = [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]
    found = {_NEGATIONS[word] for word in words if word in _NEGATIONS}
    return found | {"not" for word in words if word.endswith("n't")}


def _missing_names(text: str, other: str) -> set[str]:
    """Return the capitalised words of `text` that `other` has not.

    A word that begins a sentence may be an ordinary one: it is excused when it is a function word or when the other
    text has it in any case.
    """
    others = _WORD.findall(other)
    capitalised = {word for word in others if word[0].isupper()}
    any_case = {word.lower() for word in others}
    missing = set()
    for match in _WORD.finditer(text):
        word = match[0]
        if not word[0].isupper() or word == "I" or word in capitalised:
            continue
        starts = _SENTENCE_END.search(text[max(0, match.start() - 20) : match.start()])
        at_start = match.start() == 0 or starts is not None
        if at_start and (word.lower() in _STARTERS or word.lower() in any_case):
            continue
        missing.add(word)
    return missing
