"""Where the generator is trained: on a GPU where there is one, unless the settings say otherwise."""

from __future__ import annotations

import torch
from shammah_chassis.errors import InvalidInputError


def choose_device(wanted: str) -> str:
    """Return "cuda" or "cpu" for "auto", "cuda" or "cpu".

    Raises:
        InvalidInputError: "cuda" where torch sees none.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is 'cuda' but torch sees none; allowed here: 'auto', 'cpu'")
    return wanted
