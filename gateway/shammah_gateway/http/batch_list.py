"""The list of one caller's batches, cut out of the list of the whole account, page by page.

It knows the paging of the Messages API (`limit`, `after_id`, `before_id`); not how a page is fetched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from shammah_chassis.errors import InvalidInputError, TeacherError

# What the API takes at most, and what it gives when nothing is said.
MAX_LIMIT = 1000
DEFAULT_LIMIT = 20
# An account with more pages than this between two batches of one caller has its list cut short.
MAX_PAGES = 50

Fetch = Callable[[Mapping[str, str]], Awaitable[dict[str, Any]]]


async def list_own(query: Mapping[str, str], owns: Callable[[str], bool], fetch: Fetch) -> dict[str, Any]:
    """Return the page that a query asks for, newest first, with the batches that `owns` says yes to.

    `fetch` returns a page of the account by its query.

    Raises:
        InvalidInputError: a limit that is none. TeacherError: a page is not of its form. And as `fetch`.
    """
    limit = _read_limit(query.get("limit"))
    newer = "before_id" in query
    cursor = query.get("before_id") if newer else query.get("after_id")
    found: list[dict[str, Any]] = []
    for _ in range(MAX_PAGES):
        asked = {"limit": str(MAX_LIMIT)}
        if cursor:
            asked["before_id" if newer else "after_id"] = cursor
        rows, more = _read_page(await fetch(asked))
        # Going to the newer ones, a page's last row is the nearest.
        found += [row for row in (reversed(rows) if newer else rows) if owns(row["id"])]
        if len(found) > limit or not more or not rows:
            break
        cursor = rows[0]["id"] if newer else rows[-1]["id"]
    shown = found[:limit]
    if newer:
        shown.reverse()
    return {
        "data": shown,
        "has_more": len(found) > limit,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def _read_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidInputError(f"limit is {text!r}; allowed: 1 to {MAX_LIMIT}")
    return int(text)


def _read_page(page: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    rows = page.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        raise TeacherError("the teacher's list of batches is not of its protocol")
    return rows, page.get("has_more") is True
