"""Change single values of a JSON object without touching its other bytes: what is forwarded stays what was sent.

It knows JSON, no protocol.
"""

from __future__ import annotations

import json

from shammah_chassis.errors import InvalidInputError

_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"


def replace_top_level(body: bytes, name: str, value: str) -> bytes:
    """Return the JSON object with the text of its own field `name` replaced, wherever it stands; nested ones stay.

    Raises:
        InvalidInputError: `body` is not a JSON object in UTF-8.
    """
    try:
        text = body.decode("utf-8")
        spans = _find_values(text, name)
    except (ValueError, IndexError, RecursionError) as error:
        raise InvalidInputError(f"the request body is not a JSON object: {error}") from error
    for start, end in reversed(spans):
        text = f"{text[:start]}{json.dumps(value)}{text[end:]}"
    return text.encode("utf-8")


def _find_values(text: str, name: str) -> list[tuple[int, int]]:
    """Return where the values of a top-level key begin and end; a key that is there twice has both."""
    spans = []
    at = _skip(text, 0)
    if text[at] != "{":
        raise ValueError("no object")
    at = _skip(text, at + 1)
    while text[at] == '"':
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, at = _DECODER.raw_decode(text, start)
        if key == name:
            spans.append((start, at))
        at = _skip(text, at)
        if text[at] != ",":
            break
        at = _skip(text, at + 1)
    return spans


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
