"""Masking of personal data: what is found is replaced by its kind, as `<EMAIL_ADDRESS>`.

Found are e-mail addresses, telephone numbers, payment cards, IBANs, US social security numbers and IP addresses: what
has a form. Names and postal addresses have none, and are not found. Patterns come from datafog, check digits from
python-stdnum (the extra `pii`); both work offline and load no model. It does not know what a text is for.

Numbers that only might be personal are left alone, as a text that is no longer true teaches nothing: a run of digits
is a telephone number only with a "+", a bracket or separators, a card only if its check digit fits (Luhn).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example, Message

# datafog's words and ours, which are those that readers of masked texts know from Presidio.
_KINDS = {"PHONE": "PHONE_NUMBER", "SSN": "US_SSN", "CREDIT_CARD": "CREDIT_CARD", "IP_ADDRESS": "IP_ADDRESS"}
_EMAIL = "EMAIL_ADDRESS"
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_IP6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?:::?[0-9A-Fa-f]{1,4}){3,7}(?![\w:])")
_TOKEN = re.compile(r"\S+")
# An address has at most 64 characters before the "@" (RFC 5321); a longer word with one is masked as a whole, since
# the pattern would take time that grows with the square of it.
_LONG_WORD = 1_000


# Finds (label, start, end) in a text.
Find = Callable[[str], list[tuple[str, int, int]]]


class Masker(Protocol):
    """Masks texts and counts what it masked."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each kind were masked so far."""
        ...

    def mask(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Return a text without personal data, and how many of each kind were in it. Blocking; any thread."""
        ...


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    kind: str


@dataclass(slots=True)
class PatternMasker:
    """The masker of the extra `pii`; made by `open_masker`."""

    find_emails: Find
    find_others: Find
    is_card: Callable[[str], bool]
    is_iban: Callable[[str], bool]
    counts: Counter[str] = field(default_factory=Counter)

    def mask(self, text: str) -> tuple[str, Mapping[str, int]]:
        """As `Masker.mask`."""
        spans = _drop_overlaps([*self._find_emails(text), *self._find_ibans(text), *self._find_others(text)])
        if not spans:
            return text, {}
        parts, at = [], 0
        for span in spans:
            parts += [text[at : span.start], f"<{span.kind}>"]
            at = span.end
        found = Counter(span.kind for span in spans)
        self.counts.update(found)
        return "".join([*parts, text[at:]]), found

    def _find_emails(self, text: str) -> Iterator[_Span]:
        if "@" not in text:
            return
        for token in _TOKEN.finditer(text):
            word = token.group()
            if "@" not in word:
                continue
            if len(word) > _LONG_WORD:
                yield _Span(token.start(), token.end(), _EMAIL)
                continue
            for _, start, end in self.find_emails(word):
                yield _Span(token.start() + start, token.start() + end, _EMAIL)

    def _find_ibans(self, text: str) -> Iterator[_Span]:
        for found in _IBAN.finditer(text):
            # The pattern may have taken a capital word that follows: the longest part with a right check number is it.
            words = found.group().split(" ")
            for end in range(len(words), 0, -1):
                candidate = " ".join(words[:end])
                if self.is_iban(candidate):
                    yield _Span(found.start(), found.start() + len(candidate), "IBAN_CODE")
                    break

    def _find_others(self, text: str) -> Iterator[_Span]:
        for label, start, end in self.find_others(text):
            if self._is_personal(label, text[start:end]):
                yield _Span(start, end, _KINDS[label])
        for found in _IP6.finditer(text):
            if _is_address(found.group()):
                yield _Span(found.start(), found.end(), "IP_ADDRESS")

    def _is_personal(self, kind: str, text: str) -> bool:
        if kind == "CREDIT_CARD":
            return self.is_card(re.sub(r"[ -]", "", text))
        if kind in ("PHONE", "SSN"):
            return not text.isdigit()
        return True


def open_masker() -> Masker:
    """Return the masker.

    Raises:
        InvalidInputError: the extra `pii` is not installed.
    """
    try:
        # Here: it is optional, and takes a third of a second to import.
        from datafog.processing.text_processing.regex_annotator import RegexAnnotator
        from stdnum import iban, luhn
    except ImportError as error:
        raise InvalidInputError(
            "SHAMMAH_GATEWAY_MASK_PII is on and the extra 'pii' is not installed "
            f"({error.name}): pip install 'shammah-gateway[pii]', or turn it off"
        ) from error

    def bind(*labels: str) -> Find:
        annotator = RegexAnnotator()
        # It would try all its patterns whatever is asked for: also those that hold a year for personal.
        annotator.patterns = {label: annotator.patterns[label] for label in labels}
        return lambda text: [
            (span.label, span.start, span.end) for span in annotator.annotate_with_spans(text)[1].spans
        ]

    return PatternMasker(bind("EMAIL"), bind(*_KINDS), luhn.is_valid, iban.is_valid)


def mask_messages(masker: Masker, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the turns of a query, masked. Blocking."""
    return tuple(replace(turn, content=masker.mask(turn.content)[0]) for turn in messages)


def mask_example(masker: Masker, example: Example) -> Example:
    """Return an example with each of its texts masked; raises TooLongError where it got too long by it. Blocking."""
    texts = ("response", "reference", "tests", "prompt", "student_attempt")
    changes: dict[str, Any] = {name: masker.mask(getattr(example, name))[0] for name in texts}
    changes["query"] = mask_messages(masker, example.query)
    changes["answers"] = tuple(masker.mask(answer)[0] for answer in example.answers)
    changes["accepted"] = mask_value(masker, example.accepted)
    return replace(example, **changes)


def mask_value(masker: Masker, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with each text in it masked, keys excepted. Blocking."""
    if isinstance(value, str):
        return masker.mask(value)[0]
    if isinstance(value, list):
        return [mask_value(masker, item) for item in value]
    if isinstance(value, dict):
        return {key: mask_value(masker, item) for key, item in value.items()}
    return value


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _drop_overlaps(spans: list[_Span]) -> list[_Span]:
    """Return the spans in order, of two that overlap the longer one."""
    kept: list[_Span] = []
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if not kept or kept[-1].end <= span.start:
            kept.append(span)
        elif span.end - span.start > kept[-1].end - kept[-1].start:
            kept[-1] = span
    return kept
