"""How a teacher is asked for new examples, and how its structured answer is read. The same for every remote teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shammah_chassis.errors import TeacherError
from shammah_chassis.examples import GRADERS

from shammah_gateway.money.usage import Usage, bound_usage
from shammah_gateway.teachers.difficulty import MEANINGS, rate_queries
from shammah_gateway.teachers.json_text import read_object
from shammah_gateway.teachers.ports import (
    EXCLUDED_BYTES,
    FORM_BYTES,
    Form,
    Generation,
    OfferedExample,
    TeacherAnswer,
    Wish,
    count_bytes,
    report_billed,
)

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
GENERATE_FORM = Form("examples", GENERATE_SCHEMA)
_SHOWN_BROKEN = 200


def write_wish(wish: Wish) -> str:
    """Return the request for new examples; its form (`GENERATE_FORM`) is told beside it."""
    samples = [{"query": row.query, "response": row.response, "grader": row.grader} for row in sort_samples(wish)]
    known = _list_excluded(wish)
    lines = [
        f"Write {wish.count} new training examples for the category {wish.category!r} of a small language model.",
        f"Difficulty: {wish.difficulty}. For this category that means: {MEANINGS[wish.difficulty]}",
        *(
            [f"Focus on this, where the small model fails: {wish.focus}. Write what would teach it that."]
            if wish.focus
            else []
        ),
        "Each example is a query as a user would write it and the one right response, in the form of the samples.",
        "Vary wording, names, numbers and subjects. Keep responses short. The grader says how a response is compared:",
        "exact or label (same words), numeric (same number), json (equal JSON), similarity or judge (free text).",
        *(
            ["Samples, from easy to hard, not to be copied:", json.dumps(samples, ensure_ascii=False)]
            if samples
            else []
        ),
        *(["These queries are there already:", json.dumps(known, ensure_ascii=False)] if known else []),
        *([f"This is part {wish.part} of equal requests: choose what the other parts will not."] if wish.part else []),
    ]
    return "\n".join(lines)


def sort_samples(wish: Wish) -> Sequence[OfferedExample]:
    """Return the samples from easy to hard, by the proxy of `difficulty`."""
    rated = rate_queries([row.query for row in wish.samples])
    order = sorted(range(len(rated)), key=lambda index: (rated[index], index))
    return [wish.samples[index] for index in order]


def bound_wish(wish: Wish) -> Usage:
    """Return a usage that a call for a wish can't exceed (see `money.usage.bound_usage`)."""
    return bound_usage(count_bytes(write_wish(wish)) + FORM_BYTES, wish.max_tokens)


def read_generation(told: TeacherAnswer, wish: Wish) -> Generation:
    """Return the examples of a structured answer, at most `wish.count`; single ones out of form are in `broken`.

    Raises:
        TeacherError: all of it is not in the form that was asked for; what it was billed is reported.
    """
    rows = read_object(told.text).get("examples")
    if not isinstance(rows, list):
        report_billed(told.model, told.usage)
        raise TeacherError(
            "the teacher's examples are not in the form that was asked for: no JSON object with a list of examples, "
            f"but {told.text[:_SHOWN_BROKEN]!r}"
        )
    made: list[OfferedExample] = []
    broken: list[str] = []
    for row in rows[: wish.count]:
        offer = _read_offer(row, wish.category)
        if offer is None:
            broken.append(json.dumps(row, ensure_ascii=False)[:_SHOWN_BROKEN])
        else:
            made.append(offer)
    if broken and not made:
        report_billed(told.model, told.usage)
        raise TeacherError(
            f"the teacher's examples are not in the form that was asked for: none of {len(broken)} is, the first is "
            f"{broken[0]}"
        )
    return Generation(tuple(made), told.model, told.usage, tuple(broken))


def _read_offer(row: object, category: str) -> OfferedExample | None:
    if not isinstance(row, dict):
        return None
    texts = [row.get(name) for name in ("query", "response", "grader")]
    if not all(isinstance(text, str) for text in texts) or row["grader"] not in _OFFERED_GRADERS:
        return None
    return OfferedExample(query=row["query"], response=row["response"], category=category, grader=row["grader"])


def _list_excluded(wish: Wish) -> list[str]:
    """Return as many of the queries that are there already as a prompt has room for."""
    shown: list[str] = []
    room = EXCLUDED_BYTES
    for query in sorted(wish.exclude):
        # Quotes, comma and what JSON escapes.
        room -= len(json.dumps(query, ensure_ascii=False).encode()) + 2
        if room < 0:
            break
        shown.append(query)
    return shown
