"""Prompts that are being computed, a piece of one at a time and by turns.

It knows the model's staging slots and the kept beginnings, not what becomes of a response afterwards.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shammah_generator.prefix_cache import PrefixCache
from shammah_generator.sequence import GrowingResponse
from shammah_generator.stepping import Model, Scores

_PIECE_ALONE = 512  # where nobody waits for a step, larger pieces compute faster


@dataclass(slots=True)
class _Prompt:
    response: GrowingResponse
    slot: int
    done: int


class PromptQueue:
    """The prompts under way, at most one for each staging slot."""

    def __init__(self, model: Model, *, prefill_tokens: int, prefix_bytes: int) -> None:
        self._model = model
        self._piece = prefill_tokens
        self._under_way: deque[_Prompt] = deque()
        self._slots = list(range(model.slots, model.slots + model.staging))
        self.prefixes = PrefixCache(model, budget_bytes=prefix_bytes if model.keeps_prefixes else 0)

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def free(self) -> int:
        """How many more can be begun."""
        return len(self._slots)

    @property
    def next(self) -> GrowingResponse:
        """The response whose prompt grows next."""
        return self._under_way[0].response

    def begin(self, response: GrowingResponse) -> None:
        """Take a response whose prompt is to be computed; there must be a free slot."""
        # Under way before anything can fail: it is then ended with the others.
        prompt = _Prompt(response, self._slots.pop(), 0)
        self._under_way.append(prompt)
        prompt.done = self.prefixes.restore(prompt.slot, response.prompt)

    def grow(self, *, alone: bool) -> tuple[GrowingResponse, int, Scores] | None:
        """Compute the next piece of the prompt whose turn it is.

        Args:
            alone: no row waits for this, so the piece may be larger.

        Returns:
            If the prompt is whole now: the response, the slot that holds it until the next `begin`, and the scores of
            its last position. Else None; the prompt goes to the end of the queue.
        """
        prompt = self._under_way[0]
        ids = prompt.response.prompt
        most = max(self._piece, _PIECE_ALONE) if alone and len(self) == 1 else self._piece
        piece = ids[prompt.done : prompt.done + most]
        scores = self._model.prefill(prompt.slot, piece, past=prompt.done)
        prompt.done += len(piece)
        self._under_way.rotate(-1)
        if prompt.done < len(ids):
            return None
        self._release(prompt)
        self.prefixes.keep(prompt.slot, ids)
        return prompt.response, prompt.slot, scores

    def drop(self, response: GrowingResponse) -> None:
        """Give up the prompt of one response."""
        for prompt in [prompt for prompt in self._under_way if prompt.response is response]:
            self._release(prompt)

    def drop_cancelled(self) -> list[GrowingResponse]:
        """Give up what was cancelled; returns the responses."""
        cancelled = [prompt for prompt in self._under_way if prompt.response.handle.cancelled]
        for prompt in cancelled:
            self._release(prompt)
        return [prompt.response for prompt in cancelled]

    def clear(self) -> list[GrowingResponse]:
        """Give up all; returns the responses."""
        dropped = [prompt.response for prompt in self._under_way]
        for prompt in list(self._under_way):
            self._release(prompt)
        return dropped

    def _release(self, prompt: _Prompt) -> None:
        self._under_way.remove(prompt)
        self._slots.append(prompt.slot)
