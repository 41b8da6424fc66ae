"""One response while it grows: its tokens, its text and the chunks that its caller gets.

It is driven by the engine's thread: by the scores of likeliest tokens where those are what it wants, else by a row of
logits at a time. It knows neither slots nor other sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from shammah_chassis.errors import ShammahError
from tokenizers import Tokenizer

from shammah_generator.constraint import Guide
from shammah_generator.requests import Chunk, Finish, Handle, Reason
from shammah_generator.sampling import Chooser, Sampling
from shammah_generator.scores import TokenScore, require_finite
from shammah_generator.statistics import StatisticsBuilder
from shammah_generator.stepping import Scores
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
        guide: Guide | None = None,
    ) -> None:
        self.prompt = prompt
        self.greedy = sampling.temperature == 0 and guide is None
        self.handle = Handle()
        self.finished = False
        self.started_at = monotonic()
        self.last_token = prompt[-1]
        self._on_chunk = on_chunk
        self._limit = limit
        self._ends = ends
        self._chunk_tokens = chunk_tokens
        self._chooser = Chooser(sampling, guide)
        self._stream = TextStream(tokenizer, stop=sampling.stop)
        self._statistics = StatisticsBuilder(prompt_tokens=len(prompt), constrained=guide is not None)
        # Stop strings must be looked for with each token; text that nobody watches is made a chunk at a time.
        self._watched = bool(sampling.stop)
        self._count = 0
        self._sent = False
        self._text: list[str] = []
        self._unread: list[int] = []
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._delivering = False

    @property
    def room(self) -> int:
        """How many more tokens it may have."""
        return self._limit - self._count

    def feed(self, scores: Scores, row: int) -> int:
        """Take what the model says of one row, and send a chunk or finish if it is time.

        Returns:
            How many tokens were drawn; the steps after the end of a response are left.

        Raises:
            ShammahError: the logits are not numbers.
        """
        if not self.greedy:
            self._take(self._chooser.choose(scores.logits(row)))
            return 1
        steps = len(scores.tokens[row])
        if steps > 1 and not self._watched:
            return self._take_block(scores, row)
        for step in range(steps):
            score = scores.read(row, step)
            require_finite(score.logprob + score.entropy)
            self._take(score)
            if self.finished:
                return step + 1
        return steps

    def _take_block(self, scores: Scores, row: int) -> int:
        """Take several tokens at once; the same outcome as one by one, but for the sizes of the chunks."""
        tokens = scores.tokens[row][: self._limit - self._count]
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        kept = tokens if end is None else tokens[:end]
        drawn = len(tokens) if end is None else end + 1
        require_finite(sum(scores.logprobs[row][:drawn]) + sum(scores.entropies[row][:drawn]))
        self._statistics.add_block(
            scores.logprobs[row][:drawn], scores.entropies[row][:drawn], scores.margins[row][:drawn]
        )
        self._count += len(kept)
        self._ids += kept
        self._unread += kept
        self._logprobs += scores.logprobs[row][: len(kept)]
        if end is not None:
            self._finish("stop")
        elif self._count >= self._limit:
            self._finish("length")
        else:
            self.last_token = tokens[-1]
            if len(self._ids) >= self._chunk_tokens or not self._sent:
                self._send(None)
        return drawn

    def _take(self, score: TokenScore) -> None:
        self._statistics.add(score)
        if score.token in self._ends:
            self._finish("stop")
            return
        self.last_token = score.token
        self._count += 1
        self._ids.append(score.token)
        self._logprobs.append(score.logprob)
        self._unread.append(score.token)
        if self._watched:
            self._read()
        if self._stream.stopped:
            self._finish("stop")
        elif self._count >= self._limit:
            self._finish("length")
        elif len(self._ids) >= self._chunk_tokens or not self._sent:
            # The first token goes out at once: somebody waits for it.
            self._send(None)

    def _read(self) -> None:
        """Turn the tokens that came since the last time into text."""
        if self._unread:
            self._text.append(self._stream.push(*self._unread))
            self._unread = []

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
        self._read()
        self._text.append(self._stream.flush())
        self._send(Finish(reason=reason, statistics=self._statistics.build(), error=error))

    def _send(self, finish: Finish | None) -> None:
        if self._delivering:
            return  # the caller's own function failed before: it is not called again
        self._read()
        chunk = Chunk(
            text="".join(self._text),
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            finish=finish,
        )
        self._text, self._ids, self._logprobs = [], [], []
        self._sent = True
        self._delivering = True
        self._on_chunk(chunk)
        self._delivering = False
