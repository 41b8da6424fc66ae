"""How the settings of the gateway make its ledger. Nothing else of money knows the settings."""

from __future__ import annotations

from shammah_gateway.config import GatewaySettings
from shammah_gateway.money.caps import Caps
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.store import LedgerFile

FILE_NAME = "ledger.json"


def open_ledger(settings: GatewaySettings) -> Ledger:
    """Return the ledger of a gateway, with its prices and caps. Blocking.

    Raises:
        InvalidInputError: the ledger's file is damaged, or the prices file has another form.
    """
    caps = Caps(
        calls_total=settings.teacher_max_calls,
        calls={"audit": settings.audit_max_calls},
        usd_total=settings.usd_total,
        usd_per_day=settings.usd_per_day,
        usd_per_caller=settings.usd_per_caller_per_day,
        at_cap=settings.at_cap,
    )
    return Ledger(
        LedgerFile(settings.own_dir / FILE_NAME),
        load_prices(settings.prices_file),
        caps,
        baseline=settings.baseline_model or settings.anthropic_model,
    )
