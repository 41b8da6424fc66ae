"""Audit and explore coins: pseudo-random, from a secret and the query id, before routing.

A coin depends on nothing that the cascade finds out later, so the sample is unbiased and its propensity is the rate;
and it can be recomputed afterwards. It does not know what is done with its side.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Toss:
    """How the two coins of a query fell."""

    audit: bool
    explore: bool


@dataclass(frozen=True, slots=True)
class Coins:
    """Two coins with rates 0 to 1, decided by HMAC-SHA256 of the query id."""

    secret: bytes
    audit_rate: float
    explore_rate: float

    def toss(self, query_id: str) -> Toss:
        """Return both sides for a query; the two coins are independent."""
        return Toss(
            audit=uniform(self.secret, f"audit:{query_id}") < self.audit_rate,
            explore=uniform(self.secret, f"explore:{query_id}") < self.explore_rate,
        )


def uniform(secret: bytes, text: str) -> float:
    """Return a number in [0, 1), uniform over texts: the first 53 bits of HMAC-SHA256."""
    digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return float((int.from_bytes(digest[:8], "big") >> 11) / (1 << 53))


def load_secret(path: Path) -> bytes:
    """Read the secret of the coins, or make one (mode 0600) when the file is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = os.urandom(SECRET_BYTES)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            target.write(secret)
        return secret
