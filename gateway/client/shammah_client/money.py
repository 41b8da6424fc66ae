"""What the gateway says about money: frozen dataclasses with the names of the contract.

USD are exact decimal texts ("0.0123"); `decimal.Decimal` reads them. Tokens and USD of savings are estimates.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneySpent:
    """What one purpose (answer, teach, audit, compare) has cost; `unknown_calls` have no price and are in no sum."""

    purpose: str
    calls: int
    unknown_calls: int
    input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    output_tokens: int
    usd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneySaved:
    """What local answers would have cost by one baseline model."""

    baseline: str
    answers: int
    unknown_answers: int
    estimated_input_tokens: int
    estimated_output_tokens: int
    estimated_usd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyCap:
    """One cap: usd_total, usd_per_day or usd_per_caller_per_day (then `caller` is set)."""

    name: str
    caller: str
    cap_usd: str
    charged_usd: str
    held_usd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Spent, saved and net (saved minus what learning cost); `at_cap` is "refuse" or "degrade"."""

    spent: tuple[MoneySpent, ...]
    saved: tuple[MoneySaved, ...]
    spent_usd: str
    learning_usd: str
    saved_usd: str
    net_usd: str
    unknown_calls: int
    unknown_models: tuple[str, ...]
    unsettled_usd: str
    day: str
    today_spent_usd: str
    today_saved_usd: str
    today_calls: int
    caps: tuple[MoneyCap, ...]
    at_cap: str
    baseline_model: str
    prices: str
    prices_captured: str
