"""JSON as it leaves a door: UTF-8 where it can be, escaped where a text holds half of a surrogate pair.

Half an emoji is what a client makes that cuts a text between two units of UTF-16; no UTF-8 can hold it, JSON can.
"""

from __future__ import annotations

import json

from starlette.responses import JSONResponse

HALF_PAIR = "half of a surrogate pair"


def write_json(value: object) -> bytes:
    """Return a value as compact JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def is_whole_text(text: str) -> bool:
    """Say whether UTF-8 can hold a text."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class JsonReply(JSONResponse):
    """A reply in JSON whatever its texts are."""

    def render(self, content: object) -> bytes:
        """Return the body."""
        return write_json(content)
