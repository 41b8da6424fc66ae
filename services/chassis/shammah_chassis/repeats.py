"""Whether a generated example only repeats another one: a near query, and nothing new in the response.

Which queries are near is `neardup`; this judges examples that lie near each other. Examples of users, data sets and
feedback are never judged: traffic repeats, and what repeats is evidence.
"""

from __future__ import annotations

from collections.abc import Iterable

from shammah_chassis.examples import Example
from shammah_chassis.neardup import NearDuplicates
from shammah_chassis.text import collapse_whitespace

_FREE_TEXT = frozenset({"similarity", "judge", ""})


def repeats(example: Example, near: Iterable[Example]) -> bool:
    """Say whether a generated example repeats one of those whose query lies near.

    With another response it is a contrast or a correction, and no repeat. Free text is worded differently each time,
    so of a model's free text the query alone counts; who writes an example by hand may correct free text too.
    """
    if example.provenance.origin != "synthetic":
        return False
    by_query = example.grader in _FREE_TEXT and bool(example.provenance.teacher_model)
    return any(by_query or _reduce(other.response) == _reduce(example.response) for other in near)


def _reduce(response: str) -> str:
    # "Yes." is "yes"; other signs are what tells "C#" from "C", or two lines of code apart.
    return collapse_whitespace(response).rstrip(".")


class RepeatFilter:
    """Finds repeats among the generated examples that it holds. Not for several threads at once."""

    def __init__(self) -> None:
        # Made when it is needed: most sieves hold recorded rows only.
        self._index: NearDuplicates | None = None
        self._by_cluster: dict[str, list[Example]] = {}

    def finds(self, example: Example) -> bool:
        """Say whether an example repeats one that is held."""
        if self._index is None or example.provenance.origin != "synthetic":
            return False
        cluster = self._index.find(example.query_text)
        return cluster is not None and repeats(example, self._by_cluster[cluster])

    def add(self, example: Example) -> None:
        """Hold an example; only generated ones are."""
        if example.provenance.origin == "synthetic":
            self._index = self._index or NearDuplicates()
            self._by_cluster.setdefault(self._index.add(example.query_text), []).append(example)
