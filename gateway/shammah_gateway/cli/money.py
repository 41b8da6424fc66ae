"""How the command line shows money: what was spent on what, what was saved, and how far the caps are used."""

from __future__ import annotations

from decimal import Decimal

from rich.table import Table
from shammah.v1 import gateway_pb2

from shammah_gateway.cli.console import out
from shammah_gateway.money.caps import show_usd


def print_money(money: gateway_pb2.Money) -> None:
    """Print the money of a status; nothing when nothing was ever counted and no cap is set."""
    if not any(entry.calls for entry in money.spent) and not money.saved and not money.caps:
        return
    out.print(describe_money(money))
    table = Table("spent on", "calls", "tokens in", "cached", "tokens out", "USD")
    for entry in money.spent:
        unknown = f" + {entry.unknown_calls} calls of unknown price" if entry.unknown_calls else ""
        table.add_row(
            entry.purpose,
            str(entry.calls),
            str(entry.input_tokens + entry.cache_write_tokens),
            str(entry.cache_read_tokens),
            str(entry.output_tokens),
            f"{_show(entry.usd)}{unknown}",
        )
    out.print(table)
    for cap in money.caps:
        of = f" of {cap.caller}" if cap.caller else ""
        held = f", {_show(cap.held_usd)} in flight" if cap.held_usd != "0" else ""
        out.print(f"cap {cap.name}{of}: {_show(cap.charged_usd)} of {_show(cap.cap_usd)}{held}; then: {money.at_cap}")


def describe_money(money: gateway_pb2.Money) -> str:
    """Return the sums in one line: spent, saved (an estimate, against the named baseline) and net."""
    unknown = f" and {money.unknown_calls} calls of unknown price" if money.unknown_calls else ""
    names = ", ".join(entry.baseline for entry in money.saved) or money.baseline_model
    return (
        f"money: spent {_show(money.spent_usd)}{unknown} (today {_show(money.today_spent_usd)}); "
        f"saved about {_show(money.saved_usd)} against {names}; "
        f"net of teaching and audits about {_show(money.net_usd)}"
    )


def _show(text: str) -> str:
    return show_usd(Decimal(text or "0"))
