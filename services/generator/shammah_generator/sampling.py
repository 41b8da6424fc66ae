"""How the next token is chosen from logits, and how sure the model was of it.

It knows one row of logits at a time: no sequences, no text. Scores always describe the model's own distribution, before
temperature and cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from shammah_chassis.errors import InvalidInputError, ShammahError

from shammah_generator.arrays import Array, Floats

MAX_TEMPERATURE = 2.0
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to generate one response.

    Args:
        max_tokens: most tokens of the response, the end of turn not counted.
        temperature: 0 (greedy) to 2.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens that together reach this probability, in (0, 1].
        seed: makes a sampled response repeatable on one machine; None draws a new one.
        stop: strings that end the response; they are not part of it.

    Raises:
        InvalidInputError: a value is out of range; the message names the range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InvalidInputError(f"max_tokens {self.max_tokens}; allowed: 1 or more")
        if not 0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidInputError(f"temperature {self.temperature}; allowed: 0 to {MAX_TEMPERATURE:g}")
        if self.top_k < 0:
            raise InvalidInputError(f"top_k {self.top_k}; allowed: 0 (no limit) or more")
        if not 0 < self.top_p <= 1:
            raise InvalidInputError(f"top_p {self.top_p}; allowed: above 0, up to 1")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise InvalidInputError(f"seed {self.seed}; allowed: 0 to {MAX_SEED}")
        if len(self.stop) > MAX_STOPS or any(not 0 < len(text) <= MAX_STOP_LENGTH for text in self.stop):
            raise InvalidInputError(f"stop: allowed are up to {MAX_STOPS} strings of 1 to {MAX_STOP_LENGTH} characters")


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How sure the model was at one position.

    `logprob` of the chosen token and `entropy` of the full distribution are in nats; `margin` is the log-probability of
    the likeliest token minus that of the second.
    """

    token: int
    logprob: float
    entropy: float
    margin: float


class Chooser:
    """Chooses the tokens of one response."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None

    def choose(self, logits: Floats) -> TokenScore:
        """Choose the next token from a row of logits `[vocab]`.

        Raises:
            ShammahError: the logits are not finite.
        """
        top = int(logits.argmax())
        token = top if self._random is None else self._draw(logits, self._random)
        return score_token(logits, token=token, top=top)

    def _draw(self, logits: Floats, random: np.random.Generator) -> int:
        sampling = self._sampling
        kept = _keep_top_k(logits, sampling.top_k)
        scaled = logits[kept].astype(np.float64) / sampling.temperature
        weights = np.exp(scaled - scaled.max())
        weights /= weights.sum()
        if sampling.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            # The token that crosses top_p still belongs to the nucleus (Holtzman et al. 2020).
            size = int(np.searchsorted(np.cumsum(weights[order]), sampling.top_p)) + 1
            kept, weights = kept[order[:size]], weights[order[:size]]
            weights /= weights.sum()
        place = int(np.searchsorted(np.cumsum(weights), random.random(), side="right"))
        return int(kept[min(place, len(kept) - 1)])


def score_token(logits: Floats, *, token: int, top: int) -> TokenScore:
    """Score one token of a row of logits `[vocab]` whose largest value is at `top`.

    Raises:
        ShammahError: the logits are not finite.
    """
    peak = logits[top]
    if not np.isfinite(peak):
        raise ShammahError("the model gave logits that are not numbers")
    shifted = logits - peak
    powers = np.exp(shifted)
    total = float(powers.sum(dtype=np.float64))
    log_total = math.log(total)
    # H = -sum p log p with log p = shifted - log_total. A plain sum: BLAS would differ between aligned rows.
    entropy = log_total - float((powers * shifted).sum(dtype=np.float64)) / total
    chosen = float(shifted[token])
    shifted[top] = -np.inf
    return TokenScore(
        token=token,
        logprob=chosen - log_total,
        entropy=max(0.0, entropy),
        margin=-float(shifted.max()),
    )


def _keep_top_k(logits: Floats, k: int) -> Array:
    """Return the indices of the `k` largest logits in ascending order (all, if k is 0 or more than there are)."""
    if not 0 < k < logits.size:
        return np.arange(logits.size)
    return np.sort(np.argpartition(logits, -k)[-k:])
