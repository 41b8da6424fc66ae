"""Settings of money, mixed into the gateway's: caps in USD, what happens at a cap, prices and the baseline.

The caps on calls (`teacher_max_calls`, `audit_max_calls`) stay with the teacher's settings.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

Cap = Annotated[Decimal, Field(ge=0, le=1_000_000_000, allow_inf_nan=False)]


class MoneySettings(BaseModel):
    """What a gateway may spend. All caps are hard; unset means none. A day begins at 00:00 UTC."""

    usd_total: Cap | None = Field(None, description="Most USD for teacher calls, over all days.")
    usd_per_day: Cap | None = Field(None, description="Most USD for teacher calls a day.")
    usd_per_caller_per_day: Cap | None = Field(None, description="Most USD a day for each caller (name of its token).")
    at_cap: Literal["refuse", "degrade"] = Field(
        "refuse", description='At a cap: a clear refusal, or ("degrade") a local answer that is labelled degraded.'
    )
    prices_file: Path | None = Field(None, description="Your own prices, over the shipped ones (form: prices.toml).")
    baseline_model: str = Field(
        "", description="Model that savings are counted against; empty: the anthropic_model of these settings."
    )
