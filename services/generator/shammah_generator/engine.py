"""Continuous batching: many requests share one model, joining and leaving between two steps.

One worker thread uses the model. A turn of it drops what was cancelled, computes one piece of one waiting prompt, and
decodes every active row. Prompts grow a piece at a time and by turns (`prompts`), so that a long one stalls nobody.
Rows occupy the first slots without a gap (the last row moves into a slot that falls free), so only active rows are
computed. It knows neither gRPC nor protos, and does not own the model: who loaded it closes it, after the engine.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from shammah_chassis.errors import (
    InvalidInputError,
    OverloadedError,
    ShammahError,
    TooLongError,
    UnavailableError,
)

from shammah_generator.chat import encode_prompt, find_ends
from shammah_generator.constraint import Constraint, ConstraintFactory
from shammah_generator.joint_prompts import JointPrompts
from shammah_generator.prompts import PromptQueue
from shammah_generator.requests import Chunk, Completion, Handle, Request
from shammah_generator.sequence import GrowingResponse
from shammah_generator.statistics import GenerationStatistics
from shammah_generator.stepping import Model, Scores

_LOG = logging.getLogger(__name__)
_FIRST_GUESS_SECONDS = 1.0
_MEMORY = 0.9  # weight of the past in the running mean of a response's duration


class Engine:
    """Generates text with one model.

    Args:
        model: what computes; one engine a model.
        queue_limit: requests that may wait for a slot (those of `generate_batch` not counted).
        chunk_tokens: most tokens that gather before a chunk is sent.
        prefill_tokens: most tokens of a prompt that are computed between two steps of the others.
        prefix_bytes: room for the beginnings that prompts share; 0 keeps none.
        reserved_slots: slots that are never given to what waits in the background.
    """

    def __init__(
        self,
        model: Model,
        *,
        queue_limit: int,
        chunk_tokens: int = 8,
        prefill_tokens: int = 64,
        prefix_bytes: int = 64 << 20,
        reserved_slots: int = 0,
    ) -> None:
        if min(queue_limit, chunk_tokens, prefill_tokens) < 1:
            raise InvalidInputError("queue_limit, chunk_tokens and prefill_tokens; allowed: 1 or more")
        self._model = model
        self._queue_limit = queue_limit
        self._chunk_tokens = chunk_tokens
        self._reserved = min(reserved_slots, model.slots - 1)
        self._ends = find_ends(model.tokenizer)
        self._constraints = ConstraintFactory(model.tokenizer, model.architecture.vocab, self._ends)
        self._prompts = PromptQueue(model, prefill_tokens=prefill_tokens, prefix_bytes=prefix_bytes)
        self._changed = threading.Condition()
        self._waiting: deque[GrowingResponse] = deque()
        self._batch: deque[GrowingResponse] = deque()  # rollouts: only where no user waits
        self._joint = JointPrompts(model, self._batch, self._changed)
        self._rows: list[GrowingResponse] = []  # a row's index is its slot
        self._closing = False
        self._aborting = False
        self._looked_ahead = False
        self._tokens_generated = 0
        self._session_failures = 0
        self._seconds = _FIRST_GUESS_SECONDS
        self._thread = threading.Thread(target=self._work, name="generator", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Slots in use."""
        return len(self._rows) + len(self._prompts)

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting) + len(self._batch)

    @property
    def tokens_generated(self) -> int:
        """Tokens drawn since the start."""
        return self._tokens_generated

    @property
    def session_failures(self) -> int:
        """How often a computation failed and ended all requests."""
        return self._session_failures

    @property
    def kv_bytes(self) -> int:
        """Size of the key/value buffers in bytes."""
        return self._model.kv_bytes

    @property
    def prefix_bytes(self) -> int:
        """Size of the kept beginnings of prompts."""
        return self._prompts.prefixes.kept_bytes

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens that were not computed because their beginning was kept."""
        return self._prompts.prefixes.reused_tokens

    def compile(self, constraint: Constraint) -> None:
        """Compile a constraint ahead of `submit`, which is then quick; takes up to half a second, safe in any thread.

        Raises:
            InvalidInputError: it can't be compiled.
        """
        self._constraints.compile(constraint)

    def submit(self, request: Request, on_chunk: Callable[[Chunk], None], *, background: bool = False) -> Handle:
        """Queue a request; safe from any thread.

        Args:
            request: what to generate.
            background: it may wait for all that are not, has no limit of the queue, and leaves the reserved slots free.
            on_chunk: called from the engine's thread with each chunk, the last of which has `finish`; must not block.

        Raises:
            InvalidInputError: messages, ids or sampling are invalid.
            TooLongError: the prompt does not fit the context; the message has both lengths.
            OverloadedError: the queue is full.
            UnavailableError: the engine is closing.
        """
        made = self._prepare(request, on_chunk)
        with self._changed:
            self._refuse_if_closing()
            if background:
                self._batch.append(made)
            elif len(self._waiting) < self._queue_limit:
                self._waiting.append(made)
            else:
                raise OverloadedError(
                    f"{self._queue_limit} requests wait already",
                    retry_after_seconds=max(0.05, self._seconds / self._model.slots),
                )
            self._changed.notify()
        return made.handle

    def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Generate all and wait for all; completions come in the order of the requests.

        Any number fits. Requests of `submit` go first. One that is invalid ends with reason "error" and leaves the
        others alone.

        Raises:
            UnavailableError: the engine is closing.
        """
        gathered = [_Gatherer() for _ in requests]
        made: list[GrowingResponse] = []
        for request, gatherer in zip(requests, gathered, strict=True):
            try:
                made.append(self._prepare(request, gatherer.take))
            except InvalidInputError as error:
                gatherer.refuse(error)
        with self._changed:
            self._refuse_if_closing()
            self._batch.extend(made)
            self._changed.notify()
        return [gatherer.wait() for gatherer in gathered]

    def close(self, timeout: float) -> None:
        """Take no more requests, let the others finish for `timeout` seconds, cancel the rest and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        self._aborting = True
        self._thread.join()

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise UnavailableError("the generator is shutting down")

    def _prepare(self, request: Request, on_chunk: Callable[[Chunk], None]) -> GrowingResponse:
        if bool(request.messages) == bool(request.prompt_ids):
            raise InvalidInputError("a request needs messages or prompt_ids, and not both")
        prompt = request.prompt_ids or encode_prompt(self._model.tokenizer, request.messages)
        vocab, context = self._model.architecture.vocab, self._model.context
        if min(prompt) < 0 or max(prompt) >= vocab:
            raise InvalidInputError(f"prompt_ids out of range; allowed: 0 to {vocab - 1}")
        if len(prompt) >= context:
            raise TooLongError(
                f"the prompt has {len(prompt)} tokens; allowed: up to {context - 1}, "
                f"as prompt and response share {context}"
            )
        constraint = request.sampling.constraint
        return GrowingResponse(
            prompt,
            on_chunk,
            sampling=request.sampling,
            limit=min(request.sampling.max_tokens, context - len(prompt)),
            tokenizer=self._model.tokenizer,
            ends=self._ends,
            chunk_tokens=self._chunk_tokens,
            guide=None if constraint is None else self._constraints.compile(constraint),
        )

    def _work(self) -> None:
        while self._wait_for_work():
            error = _attempt(self._take_turn)
            if error is not None:
                self._session_failures += 1
                self._end_all(partial(_fail, error=error))

    def _wait_for_work(self) -> bool:
        """Return True once there is something to do, False once there never will be."""
        with self._changed:
            while not (self._waiting or self._batch or self._rows or self._prompts):
                if self._closing:
                    return False
                self._changed.wait()
            return True

    def _take_turn(self) -> None:
        if self._aborting:
            self._end_all(GrowingResponse.cancel)
            return
        self._drop_cancelled()
        if self._rows:
            self._decode_rows()
        for _ in range(self._model.prompts_a_turn):
            if not self._waiting:
                self._joint.begin(self._rows, most=self._model.slots - self._reserved - len(self._prompts))
            self._admit()
            self._compute_prompt()

    def _decode_rows(self) -> None:
        ids = [row.last_token for row in self._rows]
        # Several steps at once only where the likeliest tokens are wanted, and while nobody waits to join.
        joining = bool(
            self._prompts or self._waiting or (self._batch and len(ids) < self._model.slots - self._reserved)
        )
        plain = all(row.greedy for row in self._rows)
        steps = self._model.most_steps if plain and not (joining and not self._looked_ahead) else 1
        self._looked_ahead = plain and not joining
        scores = self._model.decode(ids, steps=steps, more=self._looked_ahead)
        for place, row in enumerate(self._rows):
            self._advance(row, scores, place)
        self._close_gaps()

    def _admit(self) -> None:
        """Take requests out of the queues while prompts can be begun; some of the slots are not for the batch."""
        slots = self._model.slots
        while self._prompts.free:
            taken = len(self._rows) + len(self._prompts)
            with self._changed:
                if self._waiting and taken < slots:
                    response = self._waiting.popleft()
                elif self._batch and not self._waiting and self._has_room_behind_users(taken):
                    response = self._batch.popleft()
                else:
                    return
            response.started_at = monotonic()
            self._prompts.begin(response)

    def _has_room_behind_users(self, taken: int) -> bool:
        """Tell whether the batch may begin a prompt: a reserved slot is of use only with a place to compute into."""
        keeps = min(1, self._reserved, self._model.staging - 1)
        return taken < self._model.slots - self._reserved and self._prompts.free > keeps

    def _compute_prompt(self) -> None:
        """Compute a piece of a prompt; a whole one becomes a row."""
        if not self._prompts:
            return
        response = self._prompts.next
        error = _attempt(partial(self._grow_prompt, alone=not self._rows))
        if error is not None:
            self._prompts.drop(response)
            _attempt(partial(response.fail, error))

    def _grow_prompt(self, *, alone: bool) -> None:
        grown = self._prompts.grow(alone=alone)
        if grown is None:
            return
        response, slot, scores = grown
        self._advance(response, scores, 0)
        if not response.finished:
            self._model.move(slot, len(self._rows))
            self._rows.append(response)

    def _advance(self, response: GrowingResponse, scores: Scores, row: int) -> None:
        """Let one response take what is new; if it fails, only this response ends."""
        try:
            self._tokens_generated += response.feed(scores, row)
        except Exception as error:
            _attempt(partial(response.fail, _name_error(error)))
        if response.finished:
            taken = monotonic() - response.started_at
            self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * taken

    def _drop_cancelled(self) -> None:
        # Looked at once: a request that is cancelled after this waits for the next turn.
        dropped = [row for row in self._rows if row.handle.cancelled]
        with self._changed:
            for queue in (self._waiting, self._batch):
                cancelled = [made for made in queue if made.handle.cancelled]
                for made in cancelled:
                    queue.remove(made)
                dropped += cancelled
        dropped += self._prompts.drop_cancelled()
        for response in dropped:
            _attempt(response.cancel)
        self._close_gaps()

    def _close_gaps(self) -> None:
        """Free the slots of finished rows; from the back, so that the row that moves is never a finished one."""
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].finished:
                last = self._rows.pop()
                if slot < len(self._rows):
                    self._model.move(len(self._rows), slot)
                    self._rows[slot] = last
        self._model.keep(len(self._rows))

    def _end_all(self, end: Callable[[GrowingResponse], None]) -> None:
        with self._changed:
            ended = [*self._rows, *self._prompts.clear(), *self._waiting, *self._batch]
            self._rows.clear()
            self._model.keep(0)
            self._waiting.clear()
            self._batch.clear()
        for response in ended:
            _attempt(partial(end, response))


def _fail(response: GrowingResponse, *, error: ShammahError) -> None:
    response.fail(error)


class _Gatherer:
    """Puts the chunks of one response of a batch together."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._refused: InvalidInputError | None = None
        self._done = threading.Event()

    def take(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        if chunk.finish is not None:
            self._done.set()

    def refuse(self, error: InvalidInputError) -> None:
        self._refused = error
        self._done.set()

    def wait(self) -> Completion:
        self._done.wait()
        finish = self._chunks[-1].finish if self._chunks else None
        return Completion(
            text="".join(chunk.text for chunk in self._chunks),
            token_ids=tuple(token for chunk in self._chunks for token in chunk.token_ids),
            logprobs=tuple(value for chunk in self._chunks for value in chunk.logprobs),
            reason=finish.reason if finish else "error",
            statistics=finish.statistics if finish else GenerationStatistics(),
            error=finish.error if finish else self._refused,
        )


def _attempt(action: Callable[[], None]) -> ShammahError | None:
    """Do it and return what went wrong: the one place where foreign errors become ours.

    The thread must outlive every failure, whatever a caller's function or the session raises.
    """
    try:
        action()
    except Exception as error:
        return _name_error(error)
    return None


def _name_error(error: Exception) -> ShammahError:
    """Return a foreign error as one of ours, and write it down."""
    if isinstance(error, ShammahError):
        return error
    _LOG.error("a step of the generator failed", exc_info=error)
    return ShammahError(f"generation failed: {error}")
