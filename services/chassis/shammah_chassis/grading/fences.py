"""Code or JSON out of a reply: models like to put it in a Markdown fence. It knows no language."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_OPEN = re.compile(r"^[ \t]*```[^\n`]*\n", re.MULTILINE)


def strip_fence(reply: str) -> str:
    """Return what is in the first fenced block of `reply` (or after an unclosed fence), else `reply` itself."""
    match = _FENCE.search(reply)
    if match:
        return match[1]
    opened = _OPEN.search(reply)
    return reply[opened.end() :] if opened else reply
