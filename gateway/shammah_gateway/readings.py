"""The gateway's numbers for Prometheus. It only reads."""

from __future__ import annotations

from collections.abc import Callable

from shammah_chassis.metrics import Reading

from shammah_gateway.gateway import Gateway
from shammah_gateway.money.caps import PURPOSES, Purpose
from shammah_gateway.money.ledger import Ledger


def list_readings(gateway: Gateway) -> list[Reading]:
    """Return what is shown under /metrics."""
    now = gateway.monitor
    ledger = gateway.ledger
    return [
        Reading("shammah_queries_total", "Queries that ended.", lambda: now.queries, total=True),
        Reading("shammah_queries_local_total", "Answered by the student.", lambda: now.local, total=True),
        Reading("shammah_queries_forwarded_total", "Answered by the teacher.", lambda: now.forwarded, total=True),
        Reading("shammah_queries_degraded_total", "Local answers with a label.", lambda: now.degraded, total=True),
        Reading("shammah_queries_failed_total", "Queries that got an error.", lambda: now.failed, total=True),
        Reading("shammah_audits_graded_total", "Local answers that were audited.", lambda: now.audited[0], total=True),
        Reading("shammah_audits_bad_total", "Audited answers that were bad.", lambda: now.audited[1], total=True),
        Reading("shammah_examples_lost_total", "Examples without room.", lambda: now.lost_examples, total=True),
        Reading("shammah_spooled", "Envelopes that wait for the bus.", lambda: gateway.recorder.spooled),
        Reading(
            "shammah_teacher_calls_total",
            "Calls of the teacher.",
            lambda: ledger.calls,
            total=True,
        ),
        *_list_money(ledger),
        Reading("shammah_bus_connected", "1 while the bus is there.", lambda: gateway.bus.connected),
    ]


def _list_money(ledger: Ledger) -> list[Reading]:
    """Return the money in USD; what has no known price is only in the count of unknown calls."""

    def spent_for(purpose: Purpose) -> Callable[[], float]:
        return lambda: float(ledger.summary().spent[purpose].usd)

    return [
        *(
            Reading(
                f"shammah_spent_{purpose}_usd_total", f"USD for calls to {purpose}.", spent_for(purpose), total=True
            )
            for purpose in PURPOSES
        ),
        Reading(
            "shammah_saved_usd_total",
            "USD that local answers would have cost by the baseline model; an estimate.",
            lambda: float(ledger.summary().saved_usd),
            total=True,
        ),
        Reading(
            "shammah_net_usd", "Saved minus teaching, audits, comparisons.", lambda: float(ledger.summary().net_usd)
        ),
        Reading("shammah_spent_today_usd", "USD since 00:00 UTC.", lambda: float(ledger.summary().today.usd)),
        Reading(
            "shammah_unsettled_usd",
            "What calls without an end may cost.",
            lambda: float(ledger.summary().unsettled_usd),
        ),
        Reading(
            "shammah_unknown_price_calls_total",
            "Calls without a known price.",
            lambda: ledger.summary().unknown_calls,
            total=True,
        ),
    ]
