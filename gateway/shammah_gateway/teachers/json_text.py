"""JSON in the text of a teacher's answer: how the form is told in words, and how it is read. It knows no form."""

from __future__ import annotations

import json
from typing import Any

from shammah_gateway.teachers.ports import Form


def write_schema(form: Form) -> str:
    """Return the words that tell a form to a server that can't be given a schema."""
    return f"Answer with JSON only, of this JSON schema:\n{json.dumps(form.schema)}"


def read_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text is, a Markdown fence around it taken off; {} when it is none."""
    try:
        value = json.loads(_strip_fence(text))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _strip_fence(text: str) -> str:
    """Return the text inside of a Markdown code fence; open-weight models add one though told not to."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        return text.partition("\n")[2].rpartition("```")[0]
    return text
