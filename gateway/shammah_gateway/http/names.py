"""What a model name asks for: our own names choose who answers, any other id is the teacher's own.

It knows names only: not which releases or models there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from shammah_chassis.errors import InvalidInputError, NotFoundError

Mode = Literal["auto", "local", "teacher", "upstream"]
BASE_NAMES = ("shammah-auto", "shammah-local", "shammah-teacher")
# Claude Code lists only ids that begin so.
CLAUDE_PREFIX = "claude-"
_OURS = re.compile(r"(?:claude-)?shammah\b")
_FORM = re.compile(r"(?:claude-)?shammah-(auto|local|teacher)(?:-(\d*\.?\d+))?(?:@([0-9A-Za-z]+))?")


@dataclass(frozen=True, slots=True)
class ModelWish:
    """What a model name says.

    `mode`: the cascade decides (auto), only the student (local), only the teacher under its set model (teacher), or the
    teacher under the id that the caller wrote (upstream, `model`). `alpha` 0.0 and `release` "" mean: as promoted.
    """

    mode: Mode
    alpha: float = 0.0
    release: str = ""
    model: str = ""


def read_model(name: str) -> ModelWish:
    """Read a model name: `shammah-auto`, `claude-shammah-local`, `shammah-auto-0.02`, `shammah-auto@<release>`.

    Raises:
        NotFoundError: it begins as ours but is none of them.
        InvalidInputError: empty, or an alpha that is no share between 0 and 1.
    """
    if not name:
        raise InvalidInputError("model: the name is empty")
    if not _OURS.match(name):
        return ModelWish("upstream", model=name)
    found = _FORM.fullmatch(name)
    if found is None:
        raise NotFoundError(
            f"model: {name} is not known; allowed: {', '.join(BASE_NAMES)} (also with {CLAUDE_PREFIX!r} before, "
            "-<alpha> or @<release> behind), or a model id of the teacher"
        )
    mode, alpha, release = found.groups()
    share = float(alpha) if alpha else 0.0
    if alpha and not 0.0 < share < 1.0:
        raise InvalidInputError(f"model: {name} asks for alpha {alpha}; allowed: above 0 and below 1")
    return ModelWish(_mode(mode), alpha=share, release=release or "")


def _mode(text: str) -> Mode:
    return "auto" if text == "auto" else "local" if text == "local" else "teacher"
