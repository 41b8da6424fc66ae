"""What graders need from outside: an embedding model and a judge, given by the caller. No implementation is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shammah_chassis.examples import Example


class SimilarityModel(Protocol):
    """A sentence encoder."""

    def embed(self, texts: list[str], /) -> NDArray[np.float32]:
        """Return one row per text, shape (len(texts), width); rows need not have unit length."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """What a judge said; `good` None: it could not say (budget spent, teacher away)."""

    good: bool | None
    reason: str


class Judge(Protocol):
    """A judge of free text, such as the teacher; synchronous: a caller with an event loop runs it in an executor."""

    def __call__(self, response: str, example: Example, /) -> JudgeVerdict:
        """Judge `response` to the example's query against its reference ("" when it has none)."""
        ...
