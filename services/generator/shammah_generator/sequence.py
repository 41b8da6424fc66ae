"""One response while it grows: its tokens, its text and the chunks that its caller gets.

It is driven by the engine's thread, a row of logits at a time. It knows neither slots nor other sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from shammah_chassis.errors import ShammahError
from tokenizers import Tokenizer

from shammah_generator.arrays import Floats
from shammah_generator.requests import Chunk, Finish, Handle, Reason
from shammah_generator.sampling import Chooser, Sampling
from shammah_generator.statistics import StatisticsBuilder
from shammah_generator.text import TextStream


class GrowingResponse:
    """The state of one request from its submission to its last chunk."""

    def __init__(
        self,
        prompt: Sequence[int],
        on_chunk: Callable[[Chunk], None],
        *,
        sampling: Sampling,
        limit: int,
        tokenizer: Tokenizer,
        ends: frozenset[int],
        chunk_tokens: int,
    ) -> None:
        self.prompt = prompt
        self.handle = Handle()
        self.finished = False
        self.started_at = monotonic()
        self.last_token = prompt[-1]
        self._on_chunk = on_chunk
        self._limit = limit
        self._ends = ends
        self._chunk_tokens = chunk_tokens
        self._chooser = Chooser(sampling)
        self._stream = TextStream(tokenizer, stop=sampling.stop)
        self._statistics = StatisticsBuilder(prompt_tokens=len(prompt))
        self._count = 0
        self._text: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._delivering = False

    def feed(self, logits: Floats) -> None:
        """Draw the next token from its row of logits `[vocab]`, and send a chunk or finish if it is time."""
        score = self._chooser.choose(logits)
        self._statistics.add(score)
        if score.token in self._ends:
            self._finish("stop")
            return
        self.last_token = score.token
        self._count += 1
        self._ids.append(score.token)
        self._logprobs.append(score.logprob)
        self._text.append(self._stream.push(score.token))
        if self._stream.stopped:
            self._finish("stop")
        elif self._count >= self._limit:
            self._finish("length")
        elif len(self._ids) >= self._chunk_tokens:
            self._send(None)

    def cancel(self) -> None:
        """End it as the caller wished; what was drawn is sent."""
        self._finish("cancelled")

    def fail(self, error: ShammahError) -> None:
        """End it with an error; nothing happens if it has ended."""
        self._finish("error", error)

    def _finish(self, reason: Reason, error: ShammahError | None = None) -> None:
        if self.finished:
            return
        self.finished = True
        self._text.append(self._stream.flush())
        self._send(Finish(reason=reason, statistics=self._statistics.build(), error=error))

    def _send(self, finish: Finish | None) -> None:
        if self._delivering:
            return  # the caller's own function failed before: it is not called again
        chunk = Chunk(
            text="".join(self._text),
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            finish=finish,
        )
        self._text, self._ids, self._logprobs = [], [], []
        self._delivering = True
        self._on_chunk(chunk)
        self._delivering = False
