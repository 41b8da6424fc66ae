"""From the state of the money to its proto, and to the lines that people read. It decides nothing."""

from __future__ import annotations

from decimal import Decimal

from shammah.v1 import gateway_pb2

from shammah_gateway.money.books import Saved, Spent
from shammah_gateway.money.caps import Level
from shammah_gateway.money.prices import OVERRIDE_SETTING
from shammah_gateway.money.summary import MoneySummary

_SHOWN_MODELS = 5


def write_usd(amount: Decimal) -> str:
    """Return an amount as an exact decimal text, without an exponent and without needless zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def write_money(summary: MoneySummary) -> gateway_pb2.Money:
    """Return the proto of a summary."""
    return gateway_pb2.Money(
        spent=[_write_spent(purpose, entry) for purpose, entry in summary.spent.items()],
        saved=[_write_saved(baseline, entry) for baseline, entry in summary.saved.items()],
        spent_usd=write_usd(summary.spent_usd),
        learning_usd=write_usd(summary.learning_usd),
        saved_usd=write_usd(summary.saved_usd),
        net_usd=write_usd(summary.net_usd),
        unknown_calls=summary.unknown_calls,
        unknown_models=sorted(summary.unknown_models),
        unsettled_usd=write_usd(summary.unsettled_usd),
        day=summary.day,
        today_calls=summary.today.calls,
        today_spent_usd=write_usd(summary.today.usd),
        today_saved_usd=write_usd(summary.today.saved_usd),
        caps=[_write_cap(level) for level in summary.levels],
        at_cap=summary.caps.at_cap,
        baseline_model=summary.baseline,
        prices=summary.prices_name,
        prices_captured=summary.prices_captured.isoformat() if summary.prices_captured else "",
    )


def list_money_warnings(summary: MoneySummary) -> list[str]:
    """Return what is wrong with the money: unknown prices, caps that are reached, a file that is not kept."""
    texts = []
    if summary.warning:
        texts.append(f"the ledger of teacher calls is not kept: {summary.warning}")
    if summary.unknown_models:
        names = sorted(summary.unknown_models)
        shown = ", ".join(names[:_SHOWN_MODELS]) + (" and others" if len(names) > _SHOWN_MODELS else "")
        texts.append(
            f"{summary.unknown_calls} calls have no known price and are in no sum ({shown or 'no model named'}); "
            f"prices of your own go into a file named by {OVERRIDE_SETTING}"
        )
    unknown = sum(entry.unknown_answers for entry in summary.saved.values())
    if unknown:
        texts.append(f"{unknown} local answers are not in the savings: their baseline has no known price")
    texts += [f"the cap {level.title} is reached" for level in summary.levels if not level.left]
    return texts


def _write_spent(purpose: str, entry: Spent) -> gateway_pb2.MoneySpent:
    return gateway_pb2.MoneySpent(
        purpose=purpose,
        calls=entry.calls,
        unknown_calls=entry.unknown_calls,
        input_tokens=entry.input_tokens,
        cache_write_tokens=entry.cache_write_tokens,
        cache_read_tokens=entry.cache_read_tokens,
        output_tokens=entry.output_tokens,
        usd=write_usd(entry.usd),
    )


def _write_saved(baseline: str, entry: Saved) -> gateway_pb2.MoneySaved:
    return gateway_pb2.MoneySaved(
        baseline=baseline,
        answers=entry.answers,
        unknown_answers=entry.unknown_answers,
        estimated_input_tokens=entry.input_tokens,
        estimated_output_tokens=entry.output_tokens,
        estimated_usd=write_usd(entry.usd),
    )


def _write_cap(level: Level) -> gateway_pb2.MoneyCap:
    return gateway_pb2.MoneyCap(
        name=level.name,
        caller=level.caller,
        cap_usd=write_usd(level.cap),
        charged_usd=write_usd(level.charged),
        held_usd=write_usd(level.held),
    )
