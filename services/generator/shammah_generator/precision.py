"""The precisions that a generator can be served in: how each product of the decoder is computed. Only names and facts.

There are two ways to multiply by int8 weights. "block" has a scale for each block of inputs, of weights and activations
alike; `int8`, the default, uses it everywhere. "row" has one scale for each output and one for each row of activations:
a plain integer matrix product, more than two times as fast for a batch, and accurate enough to think of only where the
residual stream was rotated first (`rotation`); `int8_fast` uses it everywhere. In both, a row's result does not depend
on its neighbours in the batch. `fp32` is exact; `fp16` is for CUDA. A release names the one that it is certified for.

Measured against fp32 (KL in nats, share of equal likeliest tokens): on 3,307 positions of 96 prompts, `int8` .0038 and
.972; "row" for gate, up and head only, which is 1.2 times as fast for 32 rows, .0049 and .968. On 1,967 positions of 60
prompts, "row" everywhere .014 and .948 with the rotation, .037 and .911 without (the last two simulated in PyTorch).
With our own operators (`graph_native`) `int8` has .0036 and .969 on the 3,307 positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from shammah_chassis.errors import InvalidInputError

Precision = Literal["fp32", "int8", "int8_fast", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8", "int8_fast", "fp16")
Scheme = Literal["plain", "block", "row"]
BLOCK = 32
"""Elements of a row that share one int8 scale in the scheme "block"; 32 gave KL 0.004 to fp32, 128 gave 0.012."""
_KINDS = ("qkv", "attention", "gate", "up", "down", "head")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a precision computes: the scheme of each kind of product, and whether the weights are rotated first."""

    linears: Mapping[str, Scheme]
    rotated: bool = False
    half: bool = False

    @property
    def quantised(self) -> bool:
        """Whether any weight is stored as int8."""
        return any(scheme != "plain" for scheme in self.linears.values())


def _plan(default: Scheme, *, rotated: bool = False, half: bool = False, **others: Scheme) -> Plan:
    return Plan({kind: others.get(kind, default) for kind in _KINDS}, rotated, half)


PLANS: Mapping[Precision, Plan] = {
    "fp32": _plan("plain"),
    "int8": _plan("block"),
    "int8_fast": _plan("row", rotated=True),
    "fp16": _plan("plain", half=True),
}


def check_precision(precision: str) -> Precision:
    """Return the precision of that name.

    Raises:
        InvalidInputError: there is none; the message lists them.
    """
    for known in PRECISIONS:
        if precision == known:
            return known
    raise InvalidInputError(f"precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
