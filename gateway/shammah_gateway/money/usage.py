"""The billed tokens of one call, and how they are read from a reply. It knows no prices and no protocol but the shape.

The shape is Anthropic's `usage` object (platform documentation, 2026-11): `input_tokens` counts the uncached part of
the prompt only, so a prompt is input + cache writes + cache reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What a chat template, roles and tool preambles may add to the text of a prompt, in tokens.
_TEMPLATE_TOKENS = 512
_STANDARD = {"service_tier": ("standard", "batch"), "speed": ("standard",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as billed. `batch`: by the batch API.

    `unpriced` names what was billed beside the tokens, or that nothing is known ("usage"): no price can be told then.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    batch: bool = False
    unpriced: tuple[str, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt: what a price tier looks at."""
        return self.input_tokens + self.cache_write_5m + self.cache_write_1h + self.cache_read


UNKNOWN_USAGE = Usage(unpriced=("usage",))


def read_usage(raw: Mapping[str, Any] | None) -> Usage:
    """Return the usage of an Anthropic `usage` object; without one its price is unknown, not zero.

    Cache writes without a breakdown count as writes for 5 minutes, the default of the API.
    """
    if not raw or not (_is_count(raw.get("input_tokens")) or _is_count(raw.get("output_tokens"))):
        return UNKNOWN_USAGE
    parts = raw.get("cache_creation")
    parts = parts if isinstance(parts, Mapping) else {}
    long_writes = _count(parts, "ephemeral_1h_input_tokens")
    short_writes = _count(parts, "ephemeral_5m_input_tokens")
    rest = max(0, _count(raw, "cache_creation_input_tokens") - long_writes - short_writes)
    return Usage(
        input_tokens=_count(raw, "input_tokens"),
        output_tokens=_count(raw, "output_tokens"),
        cache_write_5m=short_writes + rest,
        cache_write_1h=long_writes,
        cache_read=_count(raw, "cache_read_input_tokens"),
        batch=raw.get("service_tier") == "batch",
        unpriced=_list_unpriced(raw),
    )


def merge_usage(started: Mapping[str, Any] | None, last: Mapping[str, Any] | None) -> Usage:
    """Return the usage of a stream, from its `message_start` and its last `message_delta`.

    The counts are cumulative, so the later one holds; some servers repeat counts as 0, and a count never falls.
    """
    merged: dict[str, Any] = dict(started or {})
    for name, value in (last or {}).items():
        before = merged.get(name)
        if value is None or (_is_count(value) and _is_count(before) and value < before):
            continue
        merged[name] = value
    return read_usage(merged)


def bound_usage(prompt_bytes: int, max_tokens: int, *, cached: bool = False) -> Usage:
    """Return a usage that a call can't exceed: a token stands for at least one byte of the request.

    `cached`: the request asks for cache writes, which cost more than plain input. Not bounded are files, threads and
    links, whose tokens are not in the request.
    """
    prompt, max_tokens = prompt_bytes + _TEMPLATE_TOKENS, max(0, max_tokens)
    if cached:
        return Usage(cache_write_1h=prompt, output_tokens=max_tokens)
    return Usage(input_tokens=prompt, output_tokens=max_tokens)


def _list_unpriced(raw: Mapping[str, Any]) -> tuple[str, ...]:
    found = [f"{name} {raw[name]}" for name, priced in _STANDARD.items() if raw.get(name) and raw[name] not in priced]
    tools = raw.get("server_tool_use")
    if isinstance(tools, Mapping):
        found += [str(name) for name, value in tools.items() if _is_count(value) and value > 0]
    if raw.get("inference_geo") not in (None, "", "global", "not_available"):
        found.append(f"inference_geo {raw['inference_geo']}")
    return tuple(found)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _count(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    return value if isinstance(value, int) and _is_count(value) else 0
