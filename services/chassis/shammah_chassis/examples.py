"""Examples: one thing to learn from each, content-addressed, and the envelope that carries 1-32 of them.

Values and their JSON form only: it does not know where examples are kept, who trains on them or how a response is
graded (`shammah_chassis.grading` does that by the field `grader`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Self

from shammah_chassis.errors import InvalidInputError, TooLongError
from shammah_chassis.fields import (
    check_text,
    read_integer,
    read_number,
    read_text,
    read_texts,
    require_object,
)

GRADERS = ("exact", "label", "numeric", "json", "contains", "unit_tests", "similarity", "judge")
ORIGINS = ("teacher", "user_correction", "synthetic", "dataset", "audit", "explore", "feedback")
ROLES = ("system", "user", "assistant")
MAX_QUERY_CHARS = 32_000
MAX_RESPONSE_CHARS = 100_000
MAX_ENVELOPE = 32
ENVELOPE_FORMAT = 1
_ONE_NUMBER = re.compile(r"[+-]?\s?\$?\s?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?(?<=\d)\s?%?", re.ASCII)
# Half of the event bus's 8 MB message limit: the largest single example (about 3 MB of UTF-8) still fits.
ENVELOPE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a query: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an example comes from; policies decide by it which role may learn from it.

    `propensity` is the probability with which it was sampled (1.0: always), in (0, 1].
    """

    origin: str
    teacher: str = ""
    teacher_model: str = ""
    licence: str = ""
    source: str = ""
    propensity: float = 1.0
    consent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("provenance.origin", self.origin, ORIGINS)
        if not 0.0 < self.propensity <= 1.0:
            raise InvalidInputError(f"field 'provenance.propensity' must be in (0, 1], is {self.propensity}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A (query, response) with its category, its grader and where it comes from.

    A response of a student is graded against `reference` (default: `response`), or `answers`
    (contains), `accepted` (json), `prompt`, `tests` and `entry_point` (unit_tests). `grader` ""
    means ungraded. `rating` is the user's: -1 bad, 0 none, 1 good; only a bad rating without a
    corrected answer may have an empty response. `request` is the id of the query that it came from ("" for none): by it
    a request is forgotten. `part_hint` "exam" keeps it out of training, "train" out of what is measured. Making an
    invalid one raises InvalidInputError that names the field, or TooLongError.
    """

    query: tuple[Message, ...]
    response: str
    category: str
    grader: str
    provenance: Provenance
    reference: str = ""
    answers: tuple[str, ...] = ()
    tests: str = ""
    prompt: str = ""
    entry_point: str = ""
    accepted: dict[str, Any] | None = field(default=None, hash=False)
    weight: float = 1.0
    part_hint: str = ""
    student_attempt: str = ""
    release: str = ""
    user: str = ""
    rating: int = 0
    request: str = ""

    def __post_init__(self) -> None:
        if not self.reference:
            object.__setattr__(self, "reference", self.response)
        _check_query(self.query)
        _check_choice("grader", self.grader, ("", *GRADERS))
        _check_choice("part_hint", self.part_hint, ("", "exam", "train"))
        _check_choice("rating", self.rating, (-1, 0, 1))
        if not self.response and self.rating != -1:
            raise InvalidInputError("field 'response' is empty; only a bad rating may have none")
        if not self.category.strip():
            raise InvalidInputError("field 'category' is empty")
        if not 0.0 <= self.weight < float("inf"):
            raise InvalidInputError(f"field 'weight' must be a number >= 0, is {self.weight}")
        if self.grader == "unit_tests" and not self.tests.strip():
            raise InvalidInputError("field 'tests' is empty; the grader 'unit_tests' needs it")
        if self.grader == "contains" and not (self.answers or self.reference):
            raise InvalidInputError("field 'answers' is empty; the grader 'contains' needs it")
        self._check_texts()

    def _check_texts(self) -> None:
        for name in ("response", "reference", "tests", "prompt", "student_attempt"):
            text = check_text(getattr(self, name), name)
            _check_length(name, len(text), MAX_RESPONSE_CHARS)
        for name in ("category", "entry_point", "release", "user", "request"):
            _check_length(name, len(check_text(getattr(self, name), name)), 256)
        _check_length("answers", sum(map(len, self.answers)), MAX_RESPONSE_CHARS)
        _check_length("accepted", len(canonical_json(self.accepted)), MAX_RESPONSE_CHARS)

    @property
    def id(self) -> str:
        """SHA-256 (hex) of the content: query, response, category, grader and its reference, rating."""
        content = {name: value for name, value in self.to_json().items() if name in _CONTENT}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @property
    def query_text(self) -> str:
        """The last user turn: what the router, the parts and the near-duplicates look at."""
        return next(turn.content for turn in reversed(self.query) if turn.role == "user")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this example: every field, its id not among them."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        row["query"] = [{"role": turn.role, "content": turn.content} for turn in self.query]
        row["answers"] = list(self.answers)
        provenance = {item.name: getattr(self.provenance, item.name) for item in fields(Provenance)}
        row["provenance"] = {**provenance, "consent": list(self.provenance.consent)}
        return row

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what `to_json` wrote; InvalidInputError names the unknown, missing or wrong field."""
        # Rows that were written before there was a request in them have none.
        given = {"request": "", **value} if isinstance(value, dict) else value
        row = require_object(given, "example", [item.name for item in fields(cls)])
        accepted = row["accepted"]
        if accepted is not None and not isinstance(accepted, dict):
            raise InvalidInputError("field 'accepted' must be an object or null")
        texts = {name: read_text(row, name) for name in _TEXT_FIELDS}
        return cls(
            query=_read_query(row["query"]),
            provenance=_read_provenance(row["provenance"]),
            answers=read_texts(row, "answers"),
            accepted=accepted,
            weight=read_number(row, "weight"),
            rating=read_integer(row, "rating"),
            **texts,
        )


_TEXT_FIELDS = (
    *("response", "category", "grader", "reference", "tests", "prompt", "entry_point"),
    *("part_hint", "student_attempt", "release", "user", "request"),
)
_CONTENT = frozenset(
    (
        *("query", "response", "category", "grader", "rating"),
        *("reference", "answers", "tests", "prompt", "entry_point", "accepted"),
    )
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message of the example log: 1 to 32 examples."""

    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.examples) <= MAX_ENVELOPE:
            raise InvalidInputError(f"an envelope holds 1 to {MAX_ENVELOPE} examples, not {len(self.examples)}")

    @property
    def message_id(self) -> str:
        """SHA-256 (hex) of the ids in order: the same examples are the same message."""
        return hashlib.sha256("\n".join(row.id for row in self.examples).encode()).hexdigest()

    def encode(self) -> bytes:
        """Return the envelope as UTF-8 JSON with its format number."""
        rows = [row.to_json() for row in self.examples]
        return canonical_json({"format": ENVELOPE_FORMAT, "examples": rows}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote; InvalidInputError for anything else or another format number."""
        try:
            value = json.loads(data, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"envelope: not JSON: {error}") from None
        # The format is read first: a newer one may have other fields, and that is what should be said.
        if isinstance(value, dict) and value.get("format", ENVELOPE_FORMAT) != ENVELOPE_FORMAT:
            raise InvalidInputError(
                f"envelope: format {value['format']!r} is not known, this program reads {ENVELOPE_FORMAT}"
            )
        row = require_object(value, "envelope", ("format", "examples"))
        if not isinstance(row["examples"], list):
            raise InvalidInputError("envelope: field 'examples' must be a list")
        return cls(tuple(Example.from_json(item) for item in row["examples"]))


def pack_envelopes(examples: Iterable[Example], *, max_bytes: int = ENVELOPE_BYTES) -> Iterator[Envelope]:
    """Yield `examples` in order as envelopes of at most 32 and about `max_bytes` each (one at least)."""
    batch: list[Example] = []
    size = 0
    for example in examples:
        cost = len(canonical_json(example.to_json()).encode())
        if batch and (len(batch) == MAX_ENVELOPE or size + cost > max_bytes):
            yield Envelope(tuple(batch))
            batch, size = [], 0
        batch.append(example)
        size += cost
    if batch:
        yield Envelope(tuple(batch))


def default_grader(response: str) -> str:
    """Return the grader of a live example whose caller named none, by the form of its response.

    A JSON object or list: `json`; one number (sign, commas, decimals, $ or %): `numeric`; at most 8 words on one line:
    `exact`; anything else needs a `judge`.
    """
    text = response.strip()
    if text[:1] in ("{", "["):
        try:
            json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError):
            pass
        else:
            return "json"
    if _ONE_NUMBER.fullmatch(text):
        return "numeric"
    return "exact" if text and len(text.split()) <= 8 and len(text.splitlines()) == 1 else "judge"


def canonical_json(value: object) -> str:
    """Return `value` as JSON with sorted keys and no spaces; InvalidInputError when JSON cannot hold it."""
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"not a JSON value: {error}") from None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_query(query: tuple[Message, ...]) -> None:
    for index, turn in enumerate(query):
        _check_choice(f"query[{index}].role", turn.role, ROLES)
        check_text(turn.content, f"query[{index}].content")
    asked = [turn.content for turn in query if turn.role == "user"]
    if not asked or not asked[-1].strip():
        raise InvalidInputError("field 'query' needs a last user turn that is not empty")
    _check_length("query", sum(len(turn.content) for turn in query), MAX_QUERY_CHARS)


def _read_query(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise InvalidInputError("field 'query' must be a list of messages")
    turns = []
    for index, item in enumerate(value):
        row = require_object(item, f"query[{index}]", ("role", "content"))
        turns.append(Message(read_text(row, "role"), read_text(row, "content")))
    return tuple(turns)


def _read_provenance(value: object) -> Provenance:
    row = require_object(value, "provenance", [item.name for item in fields(Provenance)])
    names = ("origin", "teacher", "teacher_model", "licence", "source")
    texts = {name: read_text(row, name) for name in names}
    return Provenance(propensity=read_number(row, "propensity"), consent=read_texts(row, "consent"), **texts)


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        names = ", ".join(repr(item) for item in allowed)
        raise InvalidInputError(f"field {name!r} is {value!r}; allowed: {names}")


def _check_length(name: str, length: int, limit: int) -> None:
    if length > limit:
        raise TooLongError(f"field {name!r} has {length} characters; at most {limit} are allowed")
