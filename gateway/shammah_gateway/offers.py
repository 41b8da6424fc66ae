"""Checks of offered examples before they are queued: schema, own check, (near) duplicates, nearness to exam rows.

It does not queue anything; the trainer's answer to "what would you do with these" is handed in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example, Message, Provenance, default_grader
from shammah_chassis.grading import grade
from shammah_chassis.repeats import RepeatFilter

from shammah_gateway.arithmetic import find_error
from shammah_gateway.teachers.ports import OfferedExample
from shammah_gateway.trainer_client import Verdict

Reason = Literal["schema", "duplicate", "near_exam", "failed_check", "disagreement"]
# The heaviest example that DESIGN knows is a correction.
MAX_WEIGHT = 10.0
# A row stands for 1 / propensity others; certification bounds how many one may stand for.
MIN_PROPENSITY = 0.02
_SHOWN = 200
_FORMS = frozenset({"exact", "label", "numeric", "json", "contains"})


@dataclass(slots=True)
class Sieve:
    """Examples that passed so far, and how many were rejected for which reason, with the first of each."""

    passed: list[Example] = field(default_factory=list)
    counts: Counter[Reason] = field(default_factory=Counter)
    samples: dict[Reason, str] = field(default_factory=dict)
    # Ids of recorded rows: ground truth, that no second answer is asked for.
    truths: set[str] = field(default_factory=set)
    _repeats: RepeatFilter = field(default_factory=RepeatFilter)

    def reject(self, reason: Reason, sample: str) -> None:
        """Count a rejected example."""
        self.counts[reason] += 1
        self.samples.setdefault(reason, sample[:_SHOWN])

    def add(self, example: Example) -> None:
        """Let an example pass, unless it is one before, or nearly so, or its own response fails its grader."""
        if self.holds(example):
            self.reject("duplicate", example.query_text)
        elif problem := check_response(example):
            self.reject("failed_check", f"{example.query_text}: {problem}")
        else:
            self._pass(example)

    def holds(self, example: Example) -> bool:
        """Say whether an example was let through before, or a generated one that it repeats."""
        return any(example.id == other.id for other in self.passed) or self._repeats.finds(example)

    def drop_known(self, earlier: Sieve) -> None:
        """Reject what an earlier sieve holds."""
        examples, self.passed = self.passed, []
        for example in examples:
            if earlier.holds(example):
                self.reject("duplicate", example.query_text)
            else:
                self.passed.append(example)

    def _pass(self, example: Example) -> None:
        self.passed.append(example)
        self._repeats.add(example)

    def drop(self, failed: Mapping[str, str]) -> None:
        """Reject those that a second answer disagreed with: id -> reason."""
        examples, self.passed = self.passed, []
        for example in examples:
            if reason := failed.get(example.id):
                self.reject("disagreement", f"{example.query_text}: {reason}")
            else:
                self.passed.append(example)

    def merge(self, part: Sieve) -> None:
        """Add what another sieve let through and rejected."""
        self.counts.update(part.counts)
        for reason, sample in part.samples.items():
            self.samples.setdefault(reason, sample)
        self.truths |= part.truths
        for example in part.passed:
            if self.holds(example):
                self.reject("duplicate", example.query_text)
            else:
                self._pass(example)

    def apply(self, verdicts: Sequence[Verdict]) -> None:
        """Reject what the trainer would not take; `verdicts` are of `passed`, in order."""
        examples, self.passed = self.passed, []
        for example, verdict in zip(examples, verdicts, strict=True):
            if verdict == "new":
                self.passed.append(example)
            elif verdict == "near_exam":
                self.reject("near_exam", example.query_text)
            elif verdict == "duplicate":
                self.reject("duplicate", example.query_text)
            else:
                self.reject("failed_check", f"{example.query_text}: its origin or licence is not allowed")

    @property
    def rejected(self) -> list[tuple[Reason, int, str]]:
        """Reason, count and one example of each."""
        return [(reason, count, self.samples[reason]) for reason, count in sorted(self.counts.items())]


def check_response(example: Example) -> str:
    """Return what is wrong with a response under its own grader; "" when nothing is. Blocking for `unit_tests`.

    A response is graded against its own reference: JSON must parse, a number must be there, the tests must pass. Where
    the query is a plain arithmetic expression it is computed.
    """
    if not example.response or not example.grader:
        return ""
    if example.grader in ("numeric", "exact") and (wrong := find_error(example.query_text, example.response)):
        return wrong
    verdict = grade(example.response, example)
    # A form that can't even grade its own reference (a number without a number) will never grade anything.
    hopeless = verdict.good is None and example.grader in _FORMS
    return verdict.detail or "the response fails its own grader" if verdict.good is False or hopeless else ""


def sift_offers(offers: Iterable[OfferedExample], *, category: str, teacher: str, model: str) -> Sieve:
    """Make examples of offers, the good ones in order; `category` is for those that name none. Blocking."""
    sieve = Sieve()
    for offer in offers:
        try:
            example = _make_example(offer, category=category, teacher=teacher, model=model)
            sieve.add(example)
            if offer.known is not None:
                sieve.truths.add(example.id)
        except InvalidInputError as error:
            sieve.reject("schema", f"{offer.query[:80]}: {error.message}")
    return sieve


def sift_json(texts: Sequence[str], *, trusted: bool) -> Sieve:
    """Make examples of the JSON of the chassis's Example. Blocking.

    `trusted`: they come from whoever may do anything, and may be evidence: what the student is measured by. Those of
    others only train, as what a teacher makes up does.
    """
    sieve = Sieve()
    for text in texts:
        try:
            example = Example.from_json(json.loads(text))
            if example.weight > MAX_WEIGHT:
                raise InvalidInputError(f"field 'weight' is {example.weight}; at most {MAX_WEIGHT} is allowed")
            if (chance := example.provenance.propensity) < MIN_PROPENSITY:
                raise InvalidInputError(f"field 'provenance.propensity' is {chance}; allowed: {MIN_PROPENSITY} to 1")
            sieve.add(example if trusted else _make_untrusted(example))
        except ValueError as error:
            sieve.reject("schema", f"not JSON: {error}")
        except InvalidInputError as error:
            sieve.reject("schema", error.message)
    return sieve


def _make_untrusted(example: Example) -> Example:
    if example.part_hint == "exam":
        raise InvalidInputError(
            "field 'part_hint' is 'exam'; exam rows decide what is served: they need a token with the scope admin"
        )
    provenance = replace(example.provenance, origin="synthetic", propensity=1.0)
    return replace(example, provenance=provenance)


def _make_example(offer: OfferedExample, *, category: str, teacher: str, model: str) -> Example:
    if not offer.query.strip() or not offer.response.strip():
        raise InvalidInputError("query and response must not be empty")
    if offer.known is not None:
        provenance = replace(offer.known.provenance, teacher=teacher, teacher_model=model)
        return replace(offer.known, provenance=provenance)
    return Example(
        query=(Message("user", offer.query),),
        response=offer.response,
        category=offer.category or category,
        grader=offer.grader or default_grader(offer.response),
        provenance=Provenance(origin="synthetic", teacher=teacher, teacher_model=model, source="generate"),
    )
