"""The value that every grader returns. It knows no grader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grade:
    """The outcome: `good` is None when nothing could be shown (no evidence); `detail` says why.

    "Bad" (False) means: the response disagrees with the reference under the grader, nothing more.
    """

    good: bool | None
    grader: str
    detail: str
