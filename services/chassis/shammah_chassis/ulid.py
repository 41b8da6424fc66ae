"""Release and query ids: ULIDs, sortable by time of making (https://github.com/ulid/spec).

Knows nothing of what it names.
"""

from __future__ import annotations

import os
import re
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_ulid(now_seconds: float | None = None) -> str:
    """Return a fresh ULID: 48 bits of Unix milliseconds, 80 random bits, 26 characters."""
    milliseconds = int((time.time() if now_seconds is None else now_seconds) * 1000)
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def read_milliseconds(ulid: str) -> int:
    """Return when a ULID was made, in Unix milliseconds; ValueError for what has not the form of one."""
    if not is_ulid(ulid):
        raise ValueError(f"{ulid!r} is no ULID")
    value = 0
    for letter in ulid[:10]:
        value = value * 32 + _ALPHABET.index(letter)
    return value


def is_ulid(text: str) -> bool:
    """Say whether the text has the form of a ULID."""
    return _PATTERN.fullmatch(text) is not None
