"""The table of graders, and grading of one or many responses.

The table is the only place that lists graders; the work of each is in its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example
from shammah_chassis.grading.grade import Grade
from shammah_chassis.grading.json_equal import grade_json
from shammah_chassis.grading.judge import grade_by_judge
from shammah_chassis.grading.numbers import grade_numeric
from shammah_chassis.grading.protocols import Judge, SimilarityModel
from shammah_chassis.grading.similarity import grade_similarity
from shammah_chassis.grading.text import grade_contains, grade_exact
from shammah_chassis.grading.unit_tests import grade_unit_tests

_PLAIN: Mapping[str, Callable[[str, Example], Grade]] = MappingProxyType(
    {
        "exact": grade_exact,
        "label": grade_exact,
        "numeric": grade_numeric,
        "json": grade_json,
        "contains": grade_contains,
        "unit_tests": grade_unit_tests,
    }
)


def grade(
    response: str,
    example: Example,
    *,
    similarity: SimilarityModel | None = None,
    judge: Judge | None = None,
) -> Grade:
    """Grade `response` against the reference of `example` under `example.grader`.

    An example without a grader, or without what its grader needs, is ungraded (`good` None), with
    the reason. The grader `unit_tests` runs the reply in a sandbox for up to 10 s: call it off the
    event loop.

    Raises:
        InvalidInputError: the grader is unknown; the message lists the allowed ones.
    """
    name = example.grader
    if not name:
        return Grade(None, name, "the example has no grader")
    if name in _PLAIN:
        return _PLAIN[name](response, example)
    if name == "similarity":
        return grade_similarity(response, example, similarity)
    if name == "judge":
        return grade_by_judge(response, example, judge)
    allowed = ", ".join((*_PLAIN, "similarity", "judge"))
    raise InvalidInputError(f"unknown grader {name!r}; allowed: {allowed}")


def grade_many(
    pairs: Sequence[tuple[str, Example]],
    *,
    similarity: SimilarityModel | None = None,
    judge: Judge | None = None,
    workers: int = 2,
) -> list[Grade]:
    """Grade (response, example) pairs; the grades are in the order of the pairs.

    At most `workers` (1-64) sandbox processes run at once, each driven by a thread of this process: a fork of a process
    that holds a model or an event loop would not be safe. Texts for `similarity` are embedded in one call.
    """
    if not 1 <= workers <= 64:
        raise InvalidInputError(f"workers is {workers}; allowed: 1 to 64")
    embedded = _embed_once(pairs, similarity) if similarity is not None else None
    with ThreadPoolExecutor(workers, thread_name_prefix="grade") as pool:
        running = {
            index: pool.submit(grade, response, example)
            for index, (response, example) in enumerate(pairs)
            if example.grader == "unit_tests"
        }
        return [
            running[index].result() if index in running else grade(response, example, similarity=embedded, judge=judge)
            for index, (response, example) in enumerate(pairs)
        ]


class _Embedded:
    """A similarity model that looks up what was embedded before."""

    def __init__(self, rows: dict[str, NDArray[np.float32]]) -> None:
        self._rows = rows

    def embed(self, texts: list[str], /) -> NDArray[np.float32]:
        return np.stack([self._rows[text] for text in texts])


def _embed_once(pairs: Sequence[tuple[str, Example]], model: SimilarityModel) -> SimilarityModel | None:
    wanted = [pair for pair in pairs if pair[1].grader == "similarity"]
    texts = sorted({text for reply, example in wanted for text in (reply, example.reference)})
    if not texts:
        return None
    return _Embedded(dict(zip(texts, model.embed(texts), strict=True)))
