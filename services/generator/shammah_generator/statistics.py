"""What a finished response tells about the model's own certainty: the validator's quality head learns from it.

It knows token scores, neither text nor requests. Statistics are evidence of certainty, not of truth.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from shammah_generator.sampling import TokenScore


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStatistics:
    """Certainty over all tokens that were drawn, the end-of-turn token included; all zero if none was.

    Log-probabilities and entropies are in nats, of the distribution before temperature and cuts. A margin is the
    log-probability of the likeliest token minus that of the second. `length` and `prompt_tokens` count tokens.
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

    def as_features(self) -> list[float]:
        """Return the values in the order of `FEATURES`."""
        return [float(getattr(self, name)) for name in FEATURES]


FEATURES: tuple[str, ...] = tuple(field.name for field in fields(GenerationStatistics))
"""Names of the features in their fixed order: that of the fields above. Only ever append."""


class StatisticsBuilder:
    """Gathers token scores while a response grows."""

    def __init__(self, *, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._scores: list[TokenScore] = []

    def add(self, score: TokenScore) -> None:
        """Count one drawn token."""
        self._scores.append(score)

    def build(self) -> GenerationStatistics:
        """Return the statistics of what was added so far."""
        scores = self._scores
        if not scores:
            return GenerationStatistics(prompt_tokens=self._prompt_tokens)
        count = len(scores)
        total = sum(score.logprob for score in scores)
        return GenerationStatistics(
            sum_logprob=total,
            mean_logprob=total / count,
            min_logprob=min(score.logprob for score in scores),
            first_logprob=scores[0].logprob,
            length=count,
            entropy_mean=sum(score.entropy for score in scores) / count,
            entropy_max=max(score.entropy for score in scores),
            margin_min=min(score.margin for score in scores),
            margin_mean=sum(score.margin for score in scores) / count,
            prompt_tokens=self._prompt_tokens,
        )
