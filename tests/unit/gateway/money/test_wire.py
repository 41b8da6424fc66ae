from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from shammah.v1 import gateway_pb2
from shammah_gateway.cli.money import describe_money, print_money
from shammah_gateway.money.usage import Usage
from shammah_gateway.money.wire import list_money_warnings, write_money, write_usd
from support.gateway import make_ledger

SONNET = "claude-sonnet-5-5"


def make_money() -> gateway_pb2.Money:
    """Ten cents for an answer, one for an audit, an unknown call, and a local answer."""
    ledger = make_ledger(usd_per_day=Decimal("0.2"), usd_per_caller=Decimal(1))
    ledger.book("answer", caller="ann", model=SONNET, usage=Usage(output_tokens=10_000))
    ledger.book("audit", model=SONNET, usage=Usage(output_tokens=1_000))
    ledger.book("answer", caller="ann", model="gpt-oss", usage=Usage(output_tokens=1_000))
    ledger.book_saved(input_tokens=50_000, output_tokens=0)
    ledger.take("answer", caller="ann", models=(SONNET,), worst=Usage(output_tokens=5_000))
    return write_money(ledger.summary())


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0"), ("0.0000006", "0.0000006"), ("1.500", "1.5"), ("100", "100"), ("1E+2", "100"), ("-0.10", "-0.1")],
)
def test_an_amount_is_an_exact_text(amount: str, text: str) -> None:
    assert write_usd(Decimal(amount)) == text


def test_the_proto_has_spent_saved_net_and_caps() -> None:
    money = make_money()
    assert (money.spent_usd, money.learning_usd, money.saved_usd, money.net_usd) == ("0.11", "0.01", "0.1", "0.09")
    assert {entry.purpose: entry.usd for entry in money.spent if entry.usd != "0"} == {"answer": "0.1", "audit": "0.01"}
    (saved,) = money.saved
    assert (saved.baseline, saved.answers, saved.estimated_input_tokens) == (SONNET, 1, 50_000)
    assert (money.unknown_calls, list(money.unknown_models)) == (1, ["gpt-oss"])
    caps = {(cap.name, cap.caller): (cap.cap_usd, cap.charged_usd, cap.held_usd) for cap in money.caps}
    assert caps == {
        ("usd_per_day", ""): ("0.2", "0.11", "0.05"),
        ("usd_per_caller_per_day", "ann"): ("1", "0.1", "0.05"),
    }
    assert (money.at_cap, money.prices_captured) == ("refuse", "2026-11-22")


def test_the_line_for_people_says_what_is_an_estimate_and_what_is_unknown() -> None:
    text = describe_money(make_money())
    assert "spent 0.11 USD and 1 calls of unknown price" in text
    assert f"saved about 0.1 USD against {SONNET}" in text


def test_the_command_line_shows_purposes_and_caps(capsys: pytest.CaptureFixture[str]) -> None:
    print_money(make_money())
    shown = capsys.readouterr().out
    assert "cap usd_per_day: 0.11 USD of 0.2 USD, 0.05 USD in flight; then: refuse" in shown
    assert "0.1 USD + 1 calls of unknown price" in shown


def test_the_command_line_is_silent_about_money_that_never_moved(capsys: pytest.CaptureFixture[str]) -> None:
    print_money(write_money(make_ledger().summary()))
    assert capsys.readouterr().out == ""


def test_warnings_name_unknown_models_and_reached_caps(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger.json", usd_per_day=Decimal("0.1"), baseline="nobody")
    ledger.book("answer", model=SONNET, usage=Usage(output_tokens=10_000))
    ledger.book("answer", model="gpt-oss", usage=Usage())
    ledger.book_saved(input_tokens=1, output_tokens=1)
    unknown, baseline, cap = list_money_warnings(ledger.summary())
    assert "gpt-oss" in unknown and "SHAMMAH_GATEWAY_PRICES_FILE" in unknown
    assert "baseline" in baseline
    assert "usd_per_day" in cap
    assert list_money_warnings(make_ledger().summary()) == []
