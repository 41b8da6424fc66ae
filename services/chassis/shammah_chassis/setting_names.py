"""Words for settings that nobody knows, each with the known names that it is nearest to.

It does not know which settings there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

_NEAR = 0.7
_MOST_NEAR = 2


def find_unknown(names: Iterable[str], prefix: str, known: Collection[str]) -> list[str]:
    """Return the names that begin with `prefix` and are not `known`, in any case of letters as settings are read."""
    return sorted(name for name in names if name.upper().startswith(prefix) and name.upper() not in known)


def describe_unknown(unknown: Collection[str], known: Collection[str], allowed: str) -> str:
    """Say which settings are not known; `allowed` is added where one has no known name that is near."""
    near = {name: _find_near(name, known) for name in unknown}
    told = [f"{name} (nearest: {', '.join(found)})" if found else name for name, found in near.items()]
    return f"unknown setting {', '.join(told)}" + ("" if all(near.values()) else f"; {allowed}")


def _find_near(name: str, known: Collection[str]) -> list[str]:
    # Without the first word: all have it, so that by it all are near.
    by_rest = {_rest(item): item for item in known}
    return [by_rest[found] for found in get_close_matches(_rest(name.upper()), by_rest, n=_MOST_NEAR, cutoff=_NEAR)]


def _rest(name: str) -> str:
    return name.partition("_")[2]
