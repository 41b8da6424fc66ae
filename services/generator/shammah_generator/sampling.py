"""How the next token is chosen from logits: greedy or drawn, after cuts, within what a constraint allows.

It knows one row of logits at a time: no sequences, no text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shammah_chassis.errors import InvalidInputError, ShammahError

from shammah_generator.arrays import Array, Floats
from shammah_generator.constraint import Constraint, Guide
from shammah_generator.scores import TokenScore, require_finite, score_token

MAX_TEMPERATURE = 2.0
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_SEED = 2**64 - 1
_ROWS = 32
_BLOCK = 256


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
        constraint: what the response must be; temperature and cuts then apply to the tokens that it allows.

    Raises:
        InvalidInputError: a value is out of range; the message names the range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None

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


class Chooser:
    """Chooses the tokens of one response.

    Args:
        sampling: how.
        guide: the compiled `sampling.constraint`, of this response alone; None if there is none.

    Raises:
        ShammahError: only one of constraint and guide is given.
    """

    def __init__(self, sampling: Sampling, guide: Guide | None = None) -> None:
        if (sampling.constraint is None) != (guide is None):
            raise ShammahError("a constraint needs its compiled guide, and a guide its constraint")
        self._sampling = sampling
        self._guide = guide
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None

    def choose(self, logits: Floats) -> TokenScore:
        """Choose the next token from a row of logits `[vocab]`, which is left as it is.

        Raises:
            ShammahError: the logits are not finite.
            InvalidInputError: the constraint allows no token, or is beyond its limits.
        """
        top = int(logits.argmax())
        require_finite(float(logits[top]))
        if self._guide is None:
            token = top if self._random is None else self._draw(logits, self._random)
            return score_token(logits, token=token, top=top)
        allowed = self._guide.allowed()
        values = logits[allowed]
        place = int(values.argmax()) if self._random is None else self._draw(values, self._random)
        score = score_token(logits, token=int(allowed[place]), top=top, allowed=allowed)
        self._guide.accept(score.token)
        return score

    def _draw(self, logits: Floats, random: np.random.Generator) -> int:
        """Return a place in `logits`, drawn after temperature and cuts."""
        sampling = self._sampling
        kept = _find_top_k(logits, sampling.top_k)
        values = logits if kept is None else logits[kept]
        weights = np.exp((values - values.max()) / np.float32(sampling.temperature))
        if sampling.top_p < 1:
            nucleus = _find_nucleus(weights, sampling.top_p)
            kept, weights = (nucleus if kept is None else kept[nucleus]), weights[nucleus]
        place = _pick(weights, random.random())
        return place if kept is None else int(kept[place])


def _find_top_k(logits: Floats, k: int) -> Array | None:
    """Return the places of the `k` largest logits in ascending order; None (all) if k is 0 or not less than all."""
    if not 0 < k < logits.size:
        return None
    candidates = np.arange(logits.size)
    columns = logits.size // _ROWS
    if k <= columns:
        # k columns have a maximum of at least `floor`, so the k largest values are at least that: few need a sort.
        peaks = logits[: _ROWS * columns].reshape(_ROWS, columns).max(axis=0)
        floor = np.partition(peaks, columns - k)[columns - k]
        candidates = np.flatnonzero(logits >= floor)
    best = np.argpartition(logits[candidates], candidates.size - k)[candidates.size - k :]
    return np.sort(candidates[best])


def _find_nucleus(weights: Floats, top_p: float) -> Array:
    """Return the places of the likeliest tokens that together reach `top_p`, the likeliest first.

    The token that crosses `top_p` still belongs to it (Holtzman et al. 2020).
    """
    total = float(weights.sum(dtype=np.float64))
    # Those below an even share of what may be left out can't reach it together: they need not be sorted.
    likely = np.flatnonzero(weights >= (1 - top_p) * total / weights.size)
    order = likely[np.argsort(-weights[likely], kind="stable")]
    reached = np.cumsum(weights[order], dtype=np.float64)
    return order[: int(np.searchsorted(reached, top_p * total)) + 1]


def _pick(weights: Floats, share: float) -> int:
    """Return the first place up to which the weights sum to more than `share` (0 to 1) of their total."""
    # First the block, then the place in it: a running sum over all would take six times as long.
    blocks = np.cumsum(np.add.reduceat(weights, np.arange(0, weights.size, _BLOCK), dtype=np.float64))
    target = share * blocks[-1]
    block = min(int(np.searchsorted(blocks, target, side="right")), blocks.size - 1)
    before = blocks[block - 1] if block else 0.0
    within = before + np.cumsum(weights[block * _BLOCK : (block + 1) * _BLOCK], dtype=np.float64)
    return block * _BLOCK + min(int(np.searchsorted(within, target, side="right")), within.size - 1)
