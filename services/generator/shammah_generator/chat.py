r"""Messages to prompt ids, in the ChatML form of SmolLM2.

`<|im_start|>role\ncontent<|im_end|>\n` for each message, then `<|im_start|>assistant\n`. Unlike SmolLM2's own template
no default system prompt is put in front: it would cost about 24 tokens a query, and the student is always fine-tuned
on this form, so it never needs it. Control tokens are put in by id and only here; text is encoded with special tokens
switched off, so a user who writes `<|im_end|>` has written ten characters, not ended a turn.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.examples import ROLES, Message
from shammah_chassis.manifest import load_json
from tokenizers import Tokenizer

START, END = "<|im_start|>", "<|im_end|>"
_TOGETHER = 4096  # examples that are encoded at once: bounds the memory
# Reading one takes a third of a second, and the versions of a base model all have the same.
_KEPT = 2
_loaded: dict[str, Tokenizer] = {}
_loading = threading.Lock()


def load_tokenizer(path: Path) -> Tokenizer:
    """Load `tokenizer.json` and check that it can carry the chat form.

    Equal files give one object, whatever version they are of: nothing may change it. It is safe in several threads.

    Raises:
        ArtifactError: unreadable, a control token is missing, or text can spell one.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: {error}") from error
    with _loading:
        if digest not in _loaded:
            made = _load(path)
            if len(_loaded) >= _KEPT:
                del _loaded[next(iter(_loaded))]
            _loaded[digest] = made
        return _loaded[digest]


def _load(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(load_json(path)))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _spell_specials(tokenizer)
    controls = {find_control(tokenizer, START), find_control(tokenizer, END)}
    if controls & set(encode_text(tokenizer, f"{START} {END}")):
        raise ArtifactError(f"tokenizer {path.name}: {START} and {END} must be special tokens")
    return tokenizer


def find_control(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a control token.

    Raises:
        ArtifactError: the tokenizer has no such token.
    """
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ArtifactError(f"the tokenizer has no token {token}")
    return found


def find_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that end a response: end of turn, end of text, and the start of somebody else's turn."""
    ids = (tokenizer.token_to_id(token) for token in (END, START, "<|endoftext|>"))
    return frozenset(found for found in ids if found is not None)


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of plain text; control tokens in it are spelled out as text."""
    _spell_specials(tokenizer)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _spell_specials(tokenizer: Tokenizer) -> None:
    """Have control tokens in text encoded like any other text."""
    # Only where it is not so: a tokenizer can't be changed while another thread encodes with it.
    if not tokenizer.encode_special_tokens:
        tokenizer.encode_special_tokens = True


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a conversation up to where the assistant's answer starts.

    Raises:
        InvalidInputError: no message, an unknown role, or the last message is the assistant's.
    """
    _check_messages(messages)
    start, end = find_control(tokenizer, START), find_control(tokenizer, END)
    newline = encode_text(tokenizer, "\n")
    ids: list[int] = []
    for message in messages:
        turn = encode_text(tokenizer, f"{message.role}\n{message.content}")
        ids += [start, *turn, end, *newline]
    return [*ids, start, *encode_text(tokenizer, "assistant\n")]


def encode_example(tokenizer: Tokenizer, messages: Sequence[Message], response: str) -> tuple[list[int], list[bool]]:
    """Return ids and label mask of a training example, both of one length.

    The response is encoded on its own, as it will be generated, and ends with the end-of-turn token. The mask is True
    where an id is to be learned: the response and its end.

    Raises:
        InvalidInputError: as `encode_prompt`.
    """
    prompt = encode_prompt(tokenizer, messages)
    answer = [*encode_text(tokenizer, response), find_control(tokenizer, END)]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


def encode_examples(
    tokenizer: Tokenizer, examples: Sequence[tuple[Sequence[Message], str]]
) -> list[tuple[list[int], list[bool]]]:
    """Return what `encode_example` returns for each pair, encoded by all cores together.

    Raises:
        InvalidInputError: as `encode_prompt`.
    """
    found: list[tuple[list[int], list[bool]]] = []
    for at in range(0, len(examples), _TOGETHER):
        found += _encode_some(tokenizer, examples[at : at + _TOGETHER])
    return found


def _encode_some(
    tokenizer: Tokenizer, examples: Sequence[tuple[Sequence[Message], str]]
) -> list[tuple[list[int], list[bool]]]:
    texts: list[str] = []
    for messages, response in examples:
        _check_messages(messages)
        texts += [f"{message.role}\n{message.content}" for message in messages]
        texts.append(response)
    _spell_specials(tokenizer)
    pieces = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    start, end = find_control(tokenizer, START), find_control(tokenizer, END)
    newline, opening = encode_text(tokenizer, "\n"), encode_text(tokenizer, "assistant\n")
    found = []
    for messages, _ in examples:
        ids: list[int] = []
        for _ in messages:
            ids += [start, *next(pieces).ids, end, *newline]
        ids += [start, *opening]
        answer = [*next(pieces).ids, end]
        found.append((ids + answer, [False] * len(ids) + [True] * len(answer)))
    return found


def _check_messages(messages: Sequence[Message]) -> None:
    if not messages:
        raise InvalidInputError("no messages; allowed: at least one")
    for message in messages:
        if message.role not in ROLES:
            raise InvalidInputError(f"role {message.role!r}; allowed: {', '.join(ROLES)}")
    if messages[-1].role == "assistant":
        raise InvalidInputError("the last message is the assistant's; allowed: user or system")
