"""What a caller hands in: turns of a conversation, and examples to learn from.

It knows their JSON form, not what is done with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shammah_client.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


# A query: its text, or turns (also as mappings with role and content, as other clients have them).
Turns = str | Sequence[Message | Mapping[str, str]]


def read_turns(turns: Turns) -> tuple[Message, ...]:
    """Return turns as messages; a text alone is one turn of the user.

    Raises:
        InvalidInputError: a turn is neither a Message nor a mapping with role and content.
    """
    if isinstance(turns, str):
        return (Message("user", turns),)
    return tuple(turn if isinstance(turn, Message) else _read_turn(turn) for turn in turns)


def _read_turn(turn: object) -> Message:
    if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
        raise InvalidInputError(f"a turn must be a Message or have exactly role and content, is {turn!r}")
    role, content = turn["role"], turn["content"]
    if not isinstance(role, str) or not isinstance(content, str):
        raise InvalidInputError("role and content of a turn must be texts")
    return Message(role, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedExample:
    """An example for the tool `generate_training_data`; "" for what is not known."""

    query: str
    response: str
    category: str = ""
    grader: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A recorded example for `submit_examples`.

    A response of the student is compared with `reference` ("" means `response`), or with `answers` (grader
    "contains"), `accepted` ("json"), `prompt`, `tests` and `entry_point` ("unit_tests"). `grader` "" means ungraded.
    `origin` says where it comes from (teacher, synthetic, dataset, ...), `licence` and `source` what a policy may ask.
    `part_hint` "exam" keeps it out of training, "train" out of what is measured.
    """

    query: Turns
    response: str
    category: str
    grader: str = ""
    reference: str = ""
    answers: Sequence[str] = ()
    tests: str = ""
    prompt: str = ""
    entry_point: str = ""
    accepted: Mapping[str, Any] | None = field(default=None, hash=False)
    weight: float = 1.0
    part_hint: str = ""
    origin: str = "dataset"
    teacher: str = ""
    teacher_model: str = ""
    licence: str = ""
    source: str = ""
    consent: Sequence[str] = ()

    def to_json(self) -> str:
        """Return the JSON text that the gateway reads."""
        names = (
            *("response", "category", "grader", "reference", "tests", "prompt", "entry_point", "weight", "part_hint"),
        )
        provenance = {name: getattr(self, name) for name in ("origin", "teacher", "teacher_model", "licence", "source")}
        row = {
            **{name: getattr(self, name) for name in names},
            "query": [{"role": turn.role, "content": turn.content} for turn in read_turns(self.query)],
            "answers": list(self.answers),
            "accepted": None if self.accepted is None else dict(self.accepted),
            "provenance": {**provenance, "propensity": 1.0, "consent": list(self.consent)},
            "student_attempt": "",
            "release": "",
            "user": "",
            "rating": 0,
        }
        return json.dumps(row, ensure_ascii=False)
