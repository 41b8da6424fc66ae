"""Checks of what callers send: each error says what was wrong and what is allowed.

It knows the limits, not the transport.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from shammah_chassis.errors import InvalidInputError, NotFoundError, TooLongError
from shammah_chassis.examples import GRADERS, MAX_QUERY_CHARS, ROLES, Message
from shammah_chassis.releases import Release

from shammah_gateway.values import Query

# What the student may be asked for. A teacher may write more: 128,000 is the longest answer that any one gives today.
MAX_NEW_TOKENS = 4096
MAX_ANSWER_TOKENS = 128_000
MAX_ROLE_TIMEOUT = 600.0
MAX_NAME_CHARS = 256


def check_query(query: Query) -> Query:
    """Return the query when it can be asked.

    Raises:
        InvalidInputError: empty, no user turn at the end, or a number out of range.
        TooLongError: more than 32,000 characters over all turns.
    """
    check_messages(query.messages)
    check_range("max_tokens", query.max_tokens, 0, MAX_ANSWER_TOKENS)
    check_range("temperature", query.temperature, 0.0, 2.0)
    check_range("alpha", query.alpha, 0.0, 1.0)
    check_range("role_timeout_seconds", query.role_timeout_seconds, 0.0, MAX_ROLE_TIMEOUT)
    if query.grader and query.grader not in GRADERS:
        raise InvalidInputError(f"grader {query.grader!r} is not known; allowed: {', '.join(GRADERS)}")
    for name, text in (("category", query.category), ("conversation", query.conversation)):
        if len(text) > MAX_NAME_CHARS:
            raise TooLongError(f"{name} has {len(text)} characters; at most {MAX_NAME_CHARS} are allowed")
    return query


def check_alpha(alpha: float, release: Release) -> None:
    """Raise InvalidInputError when a caller bears more bad answers than the release is certified for."""
    if alpha > release.alpha:
        raise InvalidInputError(
            f"alpha is {alpha:g}; allowed: up to {release.alpha:g}, what release {release.id} is certified for"
        )


def check_messages(messages: Sequence[Message]) -> None:
    """Check the turns of a query; raises as `check_query`."""
    if not messages:
        raise InvalidInputError("the query is empty; it needs at least one user turn with text")
    for turn in messages:
        if turn.role not in ROLES:
            raise InvalidInputError(f"role {turn.role!r} is not known; allowed: {', '.join(ROLES)}")
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise InvalidInputError("the query is empty; its last turn must be a user turn with text")
    length = sum(len(turn.content) for turn in messages)
    if length > MAX_QUERY_CHARS:
        raise TooLongError(f"the query has {length} characters; at most {MAX_QUERY_CHARS} are allowed")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise InvalidInputError unless low <= value <= high (a NaN is outside)."""
    if not low <= value <= high:
        raise InvalidInputError(f"{name} is {value}; allowed: {low} to {high}")


def check_categories(wanted: Sequence[str], known: Collection[str]) -> None:
    """Raise NotFoundError, with the known ones, for a category that nobody knows."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        listed = ", ".join(sorted(known)) or "none yet"
        raise NotFoundError(f"category {unknown[0]!r} is not known; known: {listed}")
