"""A file of prices: its form, and how it is read and checked. What a call costs is `prices`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from shammah_chassis.errors import InvalidInputError

# The parts of a usage that have a price, by their names in `Usage` and in the file.
COMPONENTS = ("input_tokens", "output_tokens", "cache_write_5m", "cache_write_1h", "cache_read")
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Rates(BaseModel):
    """One row: USD for a million tokens of one model, from a day on, for prompts up to a length."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    effective_from: date
    prompt_up_to: int | None = Field(None, ge=1)
    input_tokens: Usd | None = Field(None, alias="input")
    output_tokens: Usd | None = Field(None, alias="output")
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    cache_read: Usd | None = None
    source: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    captured: date | None = None
    batch_factor: Annotated[Decimal, Field(gt=0, le=1)] | None = None
    models: dict[str, tuple[Rates, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _refuse_twins(self) -> _File:
        for model, rows in self.models.items():
            keys = [(row.effective_from, row.prompt_up_to) for row in rows]
            if len(set(keys)) < len(keys):
                raise ValueError(f"{model}: two rows with the same effective_from and prompt_up_to")
        return self


@dataclass(frozen=True, slots=True)
class RateFile:
    """What a file says; `batch_factor` and `captured` None where it does not."""

    models: Mapping[str, tuple[Rates, ...]]
    batch_factor: Decimal | None
    captured: date | None


def read_rates(path: Path) -> RateFile:
    """Read a file of prices. Blocking.

    Raises:
        InvalidInputError: it can't be read or has another form; names the file and the entry.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"the prices file {path} can't be read: {error}") from error
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InvalidInputError(f"the prices file {path} is not in the form of prices.toml: {faults}") from error
    return RateFile(file.models, file.batch_factor, file.captured)
