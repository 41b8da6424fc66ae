"""Output held to a JSON schema or to one of a set of labels: which tokens may come next.

It wraps llguidance and knows grammars and token ids, no logits and no requests. Compiling is for the caller's thread;
only `Guide` is meant for the thread that draws tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray
from shammah_chassis.errors import ArtifactError, InvalidInputError
from tokenizers import Tokenizer

from shammah_generator.arrays import Array

MAX_SCHEMA_BYTES = 64 * 1024
MAX_LABELS = 1000
MAX_LABELS_BYTES = 64 * 1024
_CACHED = 32
# A state of the lexer takes 1 to 2 kB and all responses of one schema share them: at most about 40 MB a schema.
_MAX_LEXER_STATES = 20_000
# Blanks between the parts of a JSON text are bounded: a weak student would write them until its limit.
_JSON_BLANKS = r"[\x20\x0A\x0D\x09]{1,16}"
_MESSAGE_LENGTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What a response must be: a JSON text that satisfies a schema, or one of the labels (not both).

    A response that is cut by its limit or by a stop string is only the beginning of such a text.

    Raises:
        InvalidInputError: none or both are given, or one is beyond what is allowed; the message says what that is.
    """

    json_schema: str = ""
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.json_schema) == bool(self.labels):
            raise InvalidInputError("a constraint needs json_schema or labels, and not both")
        if self.labels:
            _check_labels(self.labels)
        else:
            _check_schema(self.json_schema)

    @property
    def digest(self) -> str:
        """Return the same string for the same constraint."""
        content = json.dumps([self.json_schema, self.labels])
        return hashlib.sha256(content.encode()).hexdigest()


class Guide:
    """Where one response stands: which tokens may come next, and what came.

    A cheap copy of a compiled constraint; for one response and one thread.
    """

    def __init__(self, matcher: LLMatcher, vocab: int, *, on_failure: Callable[[], None]) -> None:
        self._matcher = matcher
        self._vocab = vocab
        self._on_failure = on_failure
        self._bits: NDArray[np.int32] = allocate_token_bitmask(1, vocab)

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing but the end of turn may follow, or has followed."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def mask(self) -> NDArray[np.bool_]:
        """Return True for the tokens that may come next, `[vocab]`; the ends are among them once the text may end.

        Raises:
            InvalidInputError: no token may come next, or the grammar is beyond its limits.
        """
        fill_next_token_bitmask(self._matcher, self._bits)
        self._require_sound()
        bytes_ = self._bits.view(np.uint8).reshape(-1)
        return np.unpackbits(bytes_, count=self._vocab, bitorder="little").view(np.bool_)

    def allowed(self) -> Array:
        """Return the ids of the tokens that may come next, ascending.

        Raises:
            InvalidInputError: as `mask`.
        """
        ids = np.flatnonzero(self.mask())
        if not ids.size:
            raise InvalidInputError("the constraint allows no further token")
        return ids

    def accept(self, token: int) -> None:
        """Take the token that was drawn.

        Raises:
            InvalidInputError: it was not allowed, or the grammar is beyond its limits.
        """
        self._matcher.consume_token(token)
        self._require_sound()

    def _require_sound(self) -> None:
        if self._matcher.is_error():
            # What the copies of one compiled constraint share may be spoiled as well: the next request compiles anew.
            self._on_failure()
            raise InvalidInputError(f"the constraint can't be followed: {_shorten(self._matcher.get_error())}")


class ConstraintFactory:
    """Compiles constraints for one model; safe from any thread.

    The tables of the tokenizer (0.3 s and 30 MB for 49,152 tokens) are made with the first constraint: a model that is
    never constrained does not pay for them. The last 32 compiled constraints are kept.

    Args:
        tokenizer: the model's; byte-level, as Llama-family models have it.
        vocab: columns of the logits; those beyond the tokenizer's are never allowed.
        ends: tokens that end a response.

    Raises:
        ArtifactError: no end is given.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, ends: frozenset[int]) -> None:
        if not ends:
            raise ArtifactError("a tokenizer without a token that ends a response can't be constrained")
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._ends = ends
        self._tables: LLTokenizer | None = None
        self._building = threading.Lock()
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._changing = threading.Lock()

    def compile(self, constraint: Constraint) -> Guide:
        """Return a guide for one response; it takes milliseconds, at most about 0.2 s, or microseconds if it is kept.

        Raises:
            InvalidInputError: the schema can't be compiled; the message says why.
            ArtifactError: the tokenizer is of a kind that can't be constrained.
        """
        digest = constraint.digest
        with self._changing:
            compiled = self._compiled.get(digest)
        if compiled is None:
            compiled = self._build(constraint)  # without the lock: others need not wait
        with self._changing:
            self._compiled[digest] = compiled
            self._compiled.move_to_end(digest)
            while len(self._compiled) > _CACHED:
                self._compiled.popitem(last=False)
            copy = compiled.deep_copy()
        return Guide(copy, self._vocab, on_failure=partial(self._forget, digest, compiled))

    def _build(self, constraint: Constraint) -> LLMatcher:
        limits = LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)
        try:
            grammar = _write_grammar(constraint)
        except ValueError as error:
            raise InvalidInputError(f"json_schema can't be compiled: {_shorten(str(error))}") from error
        matcher = LLMatcher(self._load_tables(), grammar, log_level=0, limits=limits)
        # Most of the work happens with the first mask, and copies share it; some schemas fail only there.
        if not matcher.is_error():
            fill_next_token_bitmask(matcher, allocate_token_bitmask(1, self._vocab))
        if matcher.is_error():
            name = "labels" if constraint.labels else "json_schema"
            raise InvalidInputError(f"{name} can't be compiled: {_shorten(matcher.get_error())}")
        return matcher

    def _load_tables(self) -> LLTokenizer:
        with self._building:
            if self._tables is None:
                try:
                    text = _hide_controls(self._tokenizer.to_str())
                    self._tables = LLTokenizer(text, n_vocab=self._vocab, eos_token=[*self._ends])
                except ValueError as error:
                    raise ArtifactError(f"the tokenizer can't be constrained: {_shorten(str(error))}") from error
            return self._tables

    def _forget(self, digest: str, compiled: LLMatcher) -> None:
        with self._changing:
            if self._compiled.get(digest) is compiled:
                del self._compiled[digest]


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"{len(labels)} labels; allowed: 1 to {MAX_LABELS}")
    if not all(labels):
        raise InvalidInputError("a label is empty; allowed: labels of at least one character")
    size = sum(len(_encode("labels", label)) for label in labels)
    if size > MAX_LABELS_BYTES:
        raise InvalidInputError(f"the labels have {size} bytes together; allowed: {MAX_LABELS_BYTES}")


def _check_schema(schema: str) -> None:
    size = len(_encode("json_schema", schema))
    if size > MAX_SCHEMA_BYTES:
        raise InvalidInputError(f"json_schema has {size} bytes; allowed: {MAX_SCHEMA_BYTES}")
    try:
        parsed = json.loads(schema)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"json_schema is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidInputError("json_schema is nested too deeply") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError("json_schema must be a JSON object")


def _encode(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name}: half of a surrogate pair; allowed: text that UTF-8 can hold") from error


def _hide_controls(tokenizer: str) -> str:
    """Return the tokenizer's JSON with names of special tokens that no text spells.

    Where only one text may follow, llguidance tokenizes it, and would take `<|im_end|>` in a label for the end of turn.
    """
    content = json.loads(tokenizer)
    vocab = content["model"]["vocab"]
    for token in content["added_tokens"]:
        if token["special"] and isinstance(vocab, dict):
            name = f"\uffff{token['id']}\uffff"
            vocab.pop(token["content"], None)
            vocab[name] = token["id"]
            token["content"] = name
    return json.dumps(content)


def _write_grammar(constraint: Constraint) -> str:
    """Return the grammar in llguidance's own form.

    Raises:
        ValueError: the schema is not the JSON that it wants.
    """
    if constraint.labels:
        # In Lark a string is written as in JSON; where one label starts another, the end of turn decides.
        return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, dict.fromkeys(constraint.labels))))
    return LLMatcher.grammar_from_json_schema(constraint.json_schema, defaults={"whitespace_pattern": _JSON_BLANKS})


def _shorten(message: str) -> str:
    """Return one line of what llguidance says, without the state that it adds."""
    line = " ".join(re.split(r"<non-verbose/>|<state>", message)[0].split())
    return line if len(line) <= _MESSAGE_LENGTH else line[:_MESSAGE_LENGTH] + "…"
