from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage

TODAY = date(2026, 11, 22)
MILLION = 1_000_000
# One call with a million tokens of each kind, so that the price is the sum of the row.
ALL = Usage(
    input_tokens=MILLION, output_tokens=MILLION, cache_write_5m=MILLION, cache_write_1h=MILLION, cache_read=MILLION
)


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("claude-fable-5-1", "92.75"),
        ("claude-opus-5-5", "37.2"),
        ("claude-opus-4-7", "46.75"),
        ("claude-sonnet-5-5", "18.6"),
        ("claude-sonnet-5", "18.7"),
        ("claude-sonnet-4-6", "28.05"),
        ("claude-haiku-4-5", "9.35"),
    ],
)
def test_each_component_has_its_price(model: str, usd: str) -> None:
    assert load_prices().price(model, ALL, TODAY) == Decimal(usd)


def test_prices_are_exact() -> None:
    table = load_prices()
    assert table.price("claude-haiku-5-5", Usage(input_tokens=1, output_tokens=1), TODAY) == Decimal("0.0000006")


def test_a_long_prompt_prices_all_tokens_by_the_higher_tier() -> None:
    table = load_prices()
    short = Usage(input_tokens=60_000, cache_read=40_000, output_tokens=1000)
    long = Usage(input_tokens=60_001, cache_read=40_000, output_tokens=1000)
    assert table.price("claude-haiku-5-5", short, TODAY) == Decimal("0.0069")
    assert table.price("claude-haiku-5-5", long, TODAY) == Decimal("0.0345005")


def test_the_batch_api_costs_half() -> None:
    table = load_prices()
    plain = table.price("claude-sonnet-5-5", Usage(input_tokens=1000, output_tokens=10), TODAY)
    batch = table.price("claude-sonnet-5-5", Usage(input_tokens=1000, output_tokens=10, batch=True), TODAY)
    assert plain is not None
    assert batch == plain / 2


def test_a_price_holds_from_its_day_on() -> None:
    table = load_prices()
    read = Usage(cache_read=MILLION)
    assert table.price("claude-sonnet-5-5", read, date(2026, 10, 6)) == Decimal("0.20")
    assert table.price("claude-sonnet-5-5", read, date(2026, 10, 7)) == Decimal("0.10")
    assert table.price("claude-sonnet-5-5", read, date(2025, 12, 31)) is None


@pytest.mark.parametrize("model", ["claude-haiku-4-5-20251001", "claude-haiku-4-5-latest", "claude-haiku-4-5@20251001"])
def test_a_dated_snapshot_has_the_price_of_its_model(model: str) -> None:
    assert load_prices().price(model, Usage(input_tokens=MILLION), TODAY) == Decimal(1)


@pytest.mark.parametrize(
    ("model", "usage", "named"),
    [
        ("gpt-oss-120b", Usage(), "'gpt-oss-120b' has no price"),
        ("", Usage(), "no model was named"),
        ("claude-fable-5-2", Usage(input_tokens=5, cache_read=1), "cache_read"),
        ("claude-sonnet-5-5", UNKNOWN_USAGE, "usage"),
        ("claude-sonnet-5-5", Usage(unpriced=("web_search_requests",)), "web_search_requests"),
    ],
)
def test_an_unknown_price_is_none_and_says_why(model: str, usage: Usage, named: str) -> None:
    table = load_prices()
    assert table.price(model, usage, TODAY) is None
    text = table.explain(model, usage, TODAY)
    assert named in text
    assert "SHAMMAH_GATEWAY_PRICES_FILE" in text


def test_a_model_is_priced_while_its_unknown_component_is_not_used() -> None:
    assert load_prices().price("claude-fable-5-2", Usage(input_tokens=MILLION), TODAY) == Decimal(8)


def test_a_users_file_replaces_the_models_that_it_names(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[[models."qwen"]]\neffective_from = 2026-01-01\ninput = 0.07\noutput = 0\n'
        '[[models."claude-haiku-5-5"]]\neffective_from = 2026-01-01\ninput = 3\noutput = 4\n'
    )
    table = load_prices(own)
    assert table.price("qwen", Usage(input_tokens=MILLION, output_tokens=5), TODAY) == Decimal("0.07")
    assert table.price("claude-haiku-5-5", Usage(input_tokens=MILLION), TODAY) == Decimal(3)
    assert table.price("claude-haiku-5-5", Usage(cache_read=1), TODAY) is None
    assert table.price("claude-sonnet-5-5", Usage(output_tokens=MILLION), TODAY) == Decimal(10)
    assert str(own) in table.explain("other", Usage(), TODAY)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("models = 3", "models"),
        ('[[models."m"]]\ninput = 1', "effective_from"),
        ('[[models."m"]]\neffective_from = 2026-01-01\ninput = -1', "input"),
        ('[[models."m"]]\neffective_from = 2026-01-01\ninptu = 1', "inptu"),
        ('[[models."m"]]\neffective_from = 2026-01-01\n[[models."m"]]\neffective_from = 2026-01-01', "two rows"),
        ("format = 2", "format"),
        ("not toml", "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_entry(tmp_path: Path, text: str, named: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load_prices(own)
    assert named in caught.value.message
    assert str(own) in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"gone\.toml"):
        load_prices(tmp_path / "gone.toml")
