from __future__ import annotations

import pytest
from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage, bound_usage, merge_usage, read_usage


def test_a_usage_object_is_read_with_its_cache_writes_by_age() -> None:
    usage = read_usage(
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 70,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 50},
            "cache_read_input_tokens": 5,
            "output_tokens": 7,
            "service_tier": "standard",
        }
    )
    assert usage == Usage(input_tokens=10, output_tokens=7, cache_write_5m=20, cache_write_1h=50, cache_read=5)
    assert usage.prompt_tokens == 85


def test_cache_writes_without_a_breakdown_are_short_ones() -> None:
    usage = read_usage({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 30})
    assert (usage.cache_write_5m, usage.cache_write_1h) == (30, 0)


@pytest.mark.parametrize("raw", [None, {}, {"input_tokens": None, "output_tokens": None}, {"input_tokens": "12"}])
def test_a_missing_usage_is_unknown_and_not_zero(raw: dict[str, object] | None) -> None:
    assert read_usage(raw) == UNKNOWN_USAGE


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"server_tool_use": {"web_search_requests": 2}}, "web_search_requests"),
        ({"speed": "fast"}, "speed fast"),
        ({"service_tier": "priority"}, "service_tier priority"),
        ({"inference_geo": "us"}, "inference_geo us"),
    ],
)
def test_what_is_billed_beside_tokens_is_named(extra: dict[str, object], named: str) -> None:
    assert read_usage({"input_tokens": 1, "output_tokens": 1, **extra}).unpriced == (named,)


def test_the_plain_values_of_the_other_fields_are_priced() -> None:
    raw = {"input_tokens": 1, "output_tokens": 1, "speed": "standard", "server_tool_use": {"web_search_requests": 0}}
    assert read_usage({**raw, "service_tier": "batch"}) == Usage(input_tokens=1, output_tokens=1, batch=True)


def test_of_a_stream_the_last_cumulative_counts_hold() -> None:
    started = {"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 1}
    last = {"output_tokens": 25, "input_tokens": 12, "cache_read_input_tokens": None}
    assert merge_usage(started, last) == Usage(input_tokens=12, output_tokens=25, cache_read=3)


def test_a_server_that_repeats_the_prompt_as_zero_does_not_make_it_free() -> None:
    assert merge_usage({"input_tokens": 12, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 9}) == Usage(
        input_tokens=12, output_tokens=9
    )


def test_a_stream_that_broke_before_its_end_has_what_was_told_at_its_start() -> None:
    assert merge_usage({"input_tokens": 12, "output_tokens": 1}, None).input_tokens == 12
    assert merge_usage(None, None) == UNKNOWN_USAGE


def test_a_bound_is_no_less_than_a_token_for_each_byte() -> None:
    assert bound_usage(1000, 50).prompt_tokens >= 1000
    assert bound_usage(1000, 50).output_tokens == 50
    assert bound_usage(1000, 50, cached=True).cache_write_1h >= 1000


def test_no_bound_is_below_nothing() -> None:
    assert bound_usage(10, -(10**9)).output_tokens == 0
