"""How a teacher is asked for new examples, and how its structured answer is read. The same for every remote teacher."""

from __future__ import annotations

import json
from typing import Any

from shammah_chassis.errors import TeacherError
from shammah_chassis.examples import GRADERS

from shammah_gateway.teachers.base import Generation, OfferedExample, TeacherAnswer, Wish, report_billed

# What a teacher may choose: an example with tests needs more fields than it is asked for.
_OFFERED_GRADERS = tuple(name for name in GRADERS if name not in ("unit_tests", "contains"))
GENERATE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["examples"],
    "properties": {
        "examples": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["query", "response", "grader"],
                "properties": {
                    "query": {"type": "string"},
                    "response": {"type": "string"},
                    "grader": {"type": "string", "enum": list(_OFFERED_GRADERS)},
                },
            },
        }
    },
}


def write_wish(wish: Wish, *, with_schema: bool = False) -> str:
    """Return the request for new examples; `with_schema` for a server that can't be given a schema beside it."""
    samples = [{"query": row.query, "response": row.response, "grader": row.grader} for row in wish.samples]
    form = ["Answer with JSON only, of this JSON schema:", json.dumps(GENERATE_SCHEMA)] if with_schema else []
    lines = [
        f"Write {wish.count} new training examples for the category {wish.category!r} of a small language model.",
        f"Difficulty: {wish.difficulty}.",
        *([f"Focus on: {wish.focus}."] if wish.focus else []),
        "Each example is a query as a user would write it and the one right response, in the form of the samples.",
        "Vary the wording. Keep responses short. The grader says how a response is compared with yours:",
        "exact or label (same words), numeric (same number), json (equal JSON), similarity or judge (free text).",
        *(["Samples:", json.dumps(samples, ensure_ascii=False)] if samples else []),
        *form,
    ]
    return "\n".join(lines)


def read_generation(told: TeacherAnswer, wish: Wish) -> Generation:
    """Return the examples of a structured answer, at most `wish.count`.

    Raises:
        TeacherError: it is not in the form that was asked for; what it was billed is reported.
    """
    try:
        rows = json.loads(_strip_fence(told.text))["examples"][: wish.count]
        made = tuple(
            OfferedExample(
                query=str(row["query"]),
                response=str(row["response"]),
                category=wish.category,
                grader=str(row["grader"]),
            )
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        report_billed(told.model, told.usage)
        raise TeacherError(f"the teacher's examples are not in the form that was asked for: {error}") from error
    return Generation(made, told.model, told.usage)


def _strip_fence(text: str) -> str:
    """Return the text inside of a Markdown code fence; open-weight models add one though told not to."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        return text.partition("\n")[2].rpartition("```")[0]
    return text
