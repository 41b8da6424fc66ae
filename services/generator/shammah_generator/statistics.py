"""What a finished response tells about the model's own certainty: the validator's quality head learns from it.

It knows token scores, neither text nor requests. Statistics are evidence of certainty, not of truth.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from shammah_generator.scores import TokenScore


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintStatistics:
    """What a constraint did to a response: how far the model was from writing it by itself.

    `forced_tokens` counts the positions whose likeliest token was not allowed (greedy: those where another was drawn).
    `unconstrained_sum_logprob` is the sum, in nats, of the log-probabilities of the likeliest token at each position:
    what `sum_logprob` could have been. `allowed_sum_logprob` is that of all allowed tokens together: `sum_logprob`
    minus it is the log-probability of the response among those that the constraint allows.
    """

    forced_tokens: int = 0
    unconstrained_sum_logprob: float = 0.0
    allowed_sum_logprob: float = 0.0

    def as_features(self) -> list[float]:
        """Return the values in the order of `CONSTRAINT_FEATURES`."""
        return [float(getattr(self, name)) for name in CONSTRAINT_FEATURES]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStatistics:
    """Certainty over all tokens that were drawn, the end-of-turn token included; all zero if none was.

    Log-probabilities and entropies are in nats, of the distribution before temperature, cuts and constraint. A margin
    is the log-probability of the likeliest token minus that of the second. `length` and `prompt_tokens` count tokens.
    `constraint` is None where the response was free.
    """

    sum_logprob: float = 0.0
    mean_logprob: float = 0.0
    min_logprob: float = 0.0
    first_logprob: float = 0.0
    length: int = 0
    entropy_mean: float = 0.0
    entropy_max: float = 0.0
    margin_min: float = 0.0
    margin_mean: float = 0.0
    prompt_tokens: int = 0
    constraint: ConstraintStatistics | None = None

    def as_features(self) -> list[float]:
        """Return the values in the order of `FEATURES`."""
        return [float(getattr(self, name)) for name in FEATURES]


FEATURES: tuple[str, ...] = tuple(field.name for field in fields(GenerationStatistics) if field.name != "constraint")
"""Names of the ten features that every validator is trained on, in their fixed order: that of the fields above."""

CONSTRAINT_FEATURES: tuple[str, ...] = tuple(field.name for field in fields(ConstraintStatistics))
"""Names of the features that only a constrained response has, in their fixed order. Only ever append."""


class StatisticsBuilder:
    """Gathers token scores while a response grows."""

    def __init__(self, *, prompt_tokens: int, constrained: bool = False) -> None:
        self._prompt_tokens = prompt_tokens
        self._constraint: list[TokenScore] | None = [] if constrained else None
        self._logprobs: list[float] = []
        self._entropies: list[float] = []
        self._margins: list[float] = []

    def add(self, score: TokenScore) -> None:
        """Count one drawn token."""
        self._logprobs.append(score.logprob)
        self._entropies.append(score.entropy)
        self._margins.append(score.margin)
        if self._constraint is not None:
            self._constraint.append(score)

    def add_block(self, logprobs: list[float], entropies: list[float], margins: list[float]) -> None:
        """Count several drawn tokens of a response without a constraint."""
        self._logprobs += logprobs
        self._entropies += entropies
        self._margins += margins

    def build(self) -> GenerationStatistics:
        """Return the statistics of what was added so far."""
        constraint = None if self._constraint is None else _build_constraint(self._constraint)
        count = len(self._logprobs)
        if not count:
            return GenerationStatistics(prompt_tokens=self._prompt_tokens, constraint=constraint)
        total = sum(self._logprobs)
        return GenerationStatistics(
            sum_logprob=total,
            mean_logprob=total / count,
            min_logprob=min(self._logprobs),
            first_logprob=self._logprobs[0],
            length=count,
            entropy_mean=sum(self._entropies) / count,
            entropy_max=max(self._entropies),
            margin_min=min(self._margins),
            margin_mean=sum(self._margins) / count,
            prompt_tokens=self._prompt_tokens,
            constraint=constraint,
        )


def _build_constraint(scores: list[TokenScore]) -> ConstraintStatistics:
    return ConstraintStatistics(
        forced_tokens=sum(score.forced for score in scores),
        unconstrained_sum_logprob=sum(score.top_logprob for score in scores),
        allowed_sum_logprob=sum(score.allowed_logprob or 0.0 for score in scores),
    )
