"""Sticky routes: a conversation that went to the teacher stays with the teacher.

The student has not seen the tools, the thinking and the facts that a teacher put into a conversation, and a change of
voice midway is noticed; so a route may go from the student to the teacher, never back. Kept in the memory of one
gateway: behind a balancer the conversations must be spread by their session. It knows no roles and no release.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from shammah_chassis.examples import Message

from shammah_gateway.values import Query

MAX_CONVERSATIONS = 16_384
# A day after its last turn nobody remembers who answered.
MAX_AGE_SECONDS = 86_400.0


class Conversations:
    """The conversations that were forwarded: the last `most`, each for `max_age_seconds` after its last turn."""

    def __init__(
        self,
        *,
        most: int = MAX_CONVERSATIONS,
        max_age_seconds: float = MAX_AGE_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._max_age = max_age_seconds
        self._now = now
        # By last turn, oldest first.
        self._forwarded: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._forwarded)

    def is_with_teacher(self, query: Query) -> bool:
        """Say whether the conversation that this query goes on was forwarded.

        A query without an earlier answer begins a conversation, whatever else came under its key.
        """
        if not any(turn.role == "assistant" for turn in query.messages):
            return False
        last = self._forwarded.get(_key_of(query))
        return last is not None and self._now() - last <= self._max_age

    def note_forwarded(self, query: Query) -> None:
        """Keep the conversation of this query with the teacher from now on."""
        key, now = _key_of(query), self._now()
        self._forwarded[key] = now
        self._forwarded.move_to_end(key)
        while len(self._forwarded) > self._most or now - next(iter(self._forwarded.values())) > self._max_age:
            self._forwarded.popitem(last=False)


def opening_of(messages: Sequence[Message]) -> str:
    """Return the key of a conversation that names none: a hash of its system turns and its first user turn.

    These are the same in each turn of it, as the whole history is sent each time.
    """
    digest = hashlib.blake2b(digest_size=16)
    for turn in messages:
        digest.update(f"{turn.role}\0{turn.content}\0".encode("utf-8", "surrogatepass"))
        if turn.role == "user":
            break
    return digest.hexdigest()


def _key_of(query: Query) -> bytes:
    """Return the key within this gateway: two callers never share a conversation."""
    name = query.conversation or opening_of(query.messages)
    return hashlib.blake2b(f"{query.user}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
