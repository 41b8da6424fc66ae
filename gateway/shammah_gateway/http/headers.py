"""The headers of the doors: what a caller says about one query, and what every reply says about its author.

It knows names and values of headers; not how they are sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.ulid import new_ulid

from shammah_gateway.http.names import ModelWish
from shammah_gateway.values import Answer

NO_TRAIN = "x-shammah-no-train"
LOCAL_ONLY = "x-shammah-local-only"
ALLOW_DEGRADED = "x-shammah-allow-degraded"
RELEASE = "x-shammah-release"
ALPHA = "x-shammah-alpha"
QUERY_ID = "x-shammah-query-id"
PASSED_OVER = "x-shammah-passed-over"
# The conversation that a request of Claude Code belongs to; other clients may say it in the same header.
SESSION = "x-claude-code-session-id"
OWN_PREFIX = "x-shammah-"
_YES = frozenset({"1", "true", "yes"})
_NO = frozenset({"", "0", "false", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller asks for one query, beyond the protocol; as the fields of `values.Query`."""

    no_learn: bool = False
    local_only: bool = False
    allow_degraded: bool = False
    release: str = ""
    alpha: float = 0.0
    conversation: str = ""


def read_options(headers: Mapping[str, str], wish: ModelWish) -> Options:
    """Read the `x-shammah-*` request headers; where the model name says the same, the header must agree or be absent.

    Raises:
        InvalidInputError: a value that is not allowed, or two that contradict each other.
    """
    release, alpha = headers.get(RELEASE, ""), _read_alpha(headers.get(ALPHA, ""))
    if release and wish.release and release != wish.release:
        raise InvalidInputError(f"{RELEASE} is {release}, the model name says {wish.release}; say it once")
    # Of two alphas the stricter one holds: neither wish is broken.
    given = [value for value in (alpha, wish.alpha) if value]
    return Options(
        no_learn=_read_flag(headers, NO_TRAIN),
        local_only=_read_flag(headers, LOCAL_ONLY) or wish.mode == "local",
        allow_degraded=_read_flag(headers, ALLOW_DEGRADED) or wish.mode == "local",
        release=release or wish.release,
        alpha=min(given) if given else 0.0,
        conversation=headers.get(SESSION, ""),
    )


def author_headers(
    *,
    route: str,
    reason: str,
    release: str = "",
    category: str = "",
    confidence: float | None = None,
    query_id: str = "",
    passed_over: Sequence[str] = (),
) -> dict[str, str]:
    """Return the headers that say who answered and why; a part that nobody knows stays away.

    `passed_over` are the teachers that were asked before and failed.
    """
    found = {
        "x-shammah-route": route,
        "x-shammah-reason": reason,
        RELEASE: release,
        "x-shammah-category": _plain(category),
        "x-shammah-confidence": "" if confidence is None else f"{confidence:.4f}",
        QUERY_ID: query_id,
        PASSED_OVER: ",".join(passed_over),
    }
    return {name: value for name, value in found.items() if value}


def answer_headers(answer: Answer) -> dict[str, str]:
    """Return the author headers of an answer."""
    return author_headers(
        route=answer.route,
        reason=answer.reason,
        release=answer.versions.release,
        category=answer.category,
        confidence=answer.confidence,
        query_id=answer.query_id,
        passed_over=[name for name, _ in answer.passed_over],
    )


def new_request_id() -> str:
    """Return an id in the form of Anthropic's request ids."""
    return f"req_{new_ulid()}"


def _read_flag(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name, "").strip().lower()
    if value not in _YES and value not in _NO:
        raise InvalidInputError(f"header {name} is {value!r}; allowed: 1 or 0")
    return value in _YES


def _read_alpha(text: str) -> float:
    if not text:
        return 0.0
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not 0.0 < alpha < 1.0:
        raise InvalidInputError(f"header {ALPHA} is {text!r}; allowed: a share above 0 and below 1")
    return alpha


def _plain(text: str) -> str:
    """Return a text that may stand in a header: a category is a user's word, a header value is Latin-1 in one line."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)
