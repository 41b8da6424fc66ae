"""What decoding steps tell about each row, and what a model must offer the engine. It computes nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizers import Tokenizer

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array, Floats
from shammah_generator.scores import TokenScore


@dataclass(frozen=True, slots=True)
class Scores:
    """The likeliest token of each row at each step, and how sure the model was of it.

    All are lists of a list for each row, a value for each step: `tokens` ids; `logprobs`, `entropies` and `margins` in
    nats (see `TokenScore`), NaN where the logits are not numbers. `logits(row)` gives the last step's logits `[vocab]`
    of a row, valid until the model's next call.
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    entropies: list[list[float]]
    margins: list[list[float]]
    logits: Callable[[int], Floats]

    def read(self, row: int, step: int) -> TokenScore:
        """Return the score of one token."""
        return TokenScore(
            token=self.tokens[row][step],
            logprob=self.logprobs[row][step],
            entropy=self.entropies[row][step],
            margin=self.margins[row][step],
            top_logprob=self.logprobs[row][step],
        )


class Model(Protocol):
    """A loaded version, as the engine uses it; one call at a time.

    Rows that decode are the slots 0 to n - 1. Prompts are computed in the `staging` slots behind those for rows
    (`slots` and up) and moved from there, so that no prompt under way stands between two rows.
    """

    architecture: Architecture
    tokenizer: Tokenizer
    slots: int
    staging: int
    context: int
    most_steps: int
    """Steps that one call of `decode` can take."""
    prompts_a_turn: int
    """Pieces of prompts to compute between two steps: one where a piece takes longer than a step."""
    joint_tokens: int
    """Tokens of the prompts of one call of `prefill_rows` at most, padding counted; 0 where it does not work."""
    keeps_prefixes: bool
    """Whether `read_prefix` and `write_prefix` work."""

    @property
    def kv_bytes(self) -> int:
        """Size of all key/value buffers in bytes."""
        ...

    @property
    def resident_bytes(self) -> int:
        """Bytes that this version may come to occupy: weights and key/value buffers."""
        ...

    def prefill(self, slot: int, ids: Sequence[int], *, past: int = 0) -> Scores:
        """Compute a piece of a prompt behind the `past` tokens that the slot holds; scores of its last position.

        Raises:
            InvalidInputError: no such slot, no ids, more than the context, or the slot holds fewer than `past`.
            ShammahError: the logits are not numbers.
        """
        ...

    def prefill_rows(self, first: int, prompts: Sequence[Sequence[int]]) -> int:
        """Compute prompts together, each without its last token, into the slots from `first` on that rows decode in.

        Returns:
            Of how many, from the first on: at least one, all where there is room for them beside each other.

        Raises:
            InvalidInputError: no such slots, a prompt of under two tokens, or too many in all.
        """
        ...

    def decode(self, ids: Sequence[int], *, steps: int = 1, more: bool = False) -> Scores:
        """Append a token to each of the first `len(ids)` slots, and with `steps` the likeliest ones that follow.

        `more` tells that the same number of steps will probably be wanted next, from the likeliest tokens on.

        Raises:
            InvalidInputError: too many rows or steps, or a row that is empty or full.
        """
        ...

    def keep(self, rows: int) -> None:
        """Tell that only the first `rows` slots are in use now, beside prompts under way."""
        ...

    def move(self, source: int, target: int) -> None:
        """Copy what one slot holds into another."""
        ...

    def read_prefix(self, slot: int, start: int, stop: int) -> Array:
        """Return a copy of a slot's keys and values for some of its positions."""
        ...

    def write_prefix(self, slot: int, start: int, values: Array) -> None:
        """Put back what `read_prefix` returned; the slot then holds the tokens up to its end."""
        ...

    def close(self) -> None:
        """Let session and buffers go; the model can't be used afterwards."""
        ...
