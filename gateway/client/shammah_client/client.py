"""The synchronous client. It may be used by several threads at once.

It sends the calls of `calls`; which are repeated, and when, is `retry`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from shammah_client import calls, results, states
from shammah_client.calls import AskOptions, Call
from shammah_client.channels import OPTIONS, make_metadata
from shammah_client.connection import find_connection
from shammah_client.errors import DeadlineError, name_error
from shammah_client.examples import Example, OfferedExample, Turns
from shammah_client.retry import RetryPolicy

T = TypeVar("T")


class Client:
    """One connection to one gateway; close it, or use it as a context manager.

    Address ("host:port") and token come from the arguments, else from SHAMMAH_GATEWAY and SHAMMAH_TOKEN, else from the
    data folder (`find_connection`). `timeout` replaces the default deadline of every call, which spans its repeats;
    each call takes its own as well. `credentials` make it TLS. Every call raises the named errors of
    `shammah_client.errors`: InvalidInputError, UnauthenticatedError, ForbiddenError, UnavailableError and DeadlineError
    can come from any.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        data_dir: str | Path | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        connection = find_connection(address=address, token=token, data_dir=data_dir)
        self.address = connection.address
        self._metadata = make_metadata(connection)
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        if credentials is None:
            self._channel = grpc.insecure_channel(connection.address, OPTIONS)
        else:
            self._channel = grpc.secure_channel(connection.address, credentials, OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that run are given up."""
        self._channel.close()

    def ask(self, query: Turns, *, timeout: float | None = None, **options: Unpack[AskOptions]) -> results.Answer:
        """Answer a query (a text, or turns): locally where that keeps the promise, else by the teacher.

        `options` are those of `AskOptions`, e.g. `local_only=True`.

        Raises:
            OverloadedError, UnavailableError, TeacherError, BudgetError: nobody could answer; see `code` and `message`.
        """
        return self._run(calls.ask(query, options), timeout)

    def query_local_model(
        self, query: str, *, max_tokens: int = 0, timeout: float | None = None
    ) -> results.LocalResponse:
        """Ask the student alone, whatever the cascade would do; `max_tokens` 0 is the default of the category."""
        return self._run(calls.query_local_model(query, max_tokens), timeout)

    def compare_responses(
        self, query: str = "", *, teacher_response: str | None = None, job: str = "", timeout: float | None = None
    ) -> results.Comparison:
        """Compare the student's response with the teacher's; without `teacher_response` the teacher is asked."""
        return self._run(calls.compare_responses(query, teacher_response, job), timeout)

    def generate_training_data(
        self,
        category: str = "",
        count: int = 0,
        *,
        difficulty: str = "",
        focus: str = "",
        examples: Sequence[OfferedExample] = (),
        job: str = "",
        timeout: float | None = None,
    ) -> results.GeneratedData:
        """Have the teacher make `count` (10 to 100; 0: as planned) examples of a category, or offer your own."""
        call = calls.generate_training_data(category, count, difficulty, focus, examples, job)
        return self._run(call, timeout)

    def analyze_model(
        self,
        *,
        test_count: int = 0,
        categories: Sequence[str] = (),
        example_budget: int = 0,
        job: str = "",
        timeout: float | None = None,
    ) -> results.Analysis:
        """Test the student on 50 to 200 (0: 100) examples that it was not taught, and plan `example_budget` more."""
        return self._run(calls.analyze_model(test_count, categories, example_budget, job), timeout)

    def train(self, *, wait: bool = False, job: str = "", timeout: float | None = None) -> results.Round:
        """Start a round of training now; `wait` stays up to 25 s for its end."""
        return self._run(calls.train(wait=wait, job=job), timeout)

    def get_job(self, job: str, *, wait_seconds: float = 0.0, timeout: float | None = None) -> results.Job:
        """Return the state of a job; waits up to `wait_seconds` (at most 25) for its end."""
        return self._run(calls.get_job(job, min(wait_seconds, calls.WAIT_SECONDS)), timeout)

    def wait_for_job(self, job: str, *, timeout: float = 3600.0) -> results.Job:
        """Wait until a job has ended, well or not, and return it.

        Raises:
            DeadlineError: it still runs after `timeout` seconds.
        """
        limit = time.monotonic() + timeout
        while True:
            left = limit - time.monotonic()
            found = self.get_job(job, wait_seconds=max(0.0, left))
            if found.ended:
                return found
            if left <= 0:
                raise DeadlineError(f"job {job} still runs after {timeout:g} s: {found.stage}")

    def send_feedback(
        self, query_id: str, rating: int, *, correction: str = "", timeout: float | None = None
    ) -> results.Feedback:
        """Rate an answer by its `query_id`: 1 good, -1 bad; a right answer given with it is learned."""
        return self._run(calls.send_feedback(query_id, rating, correction), timeout)

    def submit_examples(self, examples: Sequence[Example], *, timeout: float | None = None) -> results.Submitted:
        """Put 1 to 256 recorded examples on the stream."""
        return self._run(calls.submit_examples(examples), timeout)

    def list_releases(self, *, timeout: float | None = None) -> tuple[states.Release, ...]:
        """Return all releases, newest first."""
        return self._run(calls.list_releases(), timeout)

    def promote_release(self, release: str, *, force: bool = False, timeout: float | None = None) -> states.Promotion:
        """Make a release the champion; `force` also one that the gate held."""
        return self._run(calls.promote_release(release, force=force), timeout)

    def rollback_release(self, release: str = "", *, timeout: float | None = None) -> states.Rollback:
        """Go back to an earlier release; "" is the one before the champion."""
        return self._run(calls.rollback_release(release), timeout)

    def forget_request(self, request: str, *, timeout: float | None = None) -> states.Forgotten:
        """Remove what a query (by its id) or an example left in log, ledger, spool and indexes."""
        return self._run(calls.forget_request(request), timeout)

    def unpark_examples(self, category: str = "", *, timeout: float | None = None) -> states.Unparked:
        """Queue examples again that are parked since rounds failed on them, of one category or all ("")."""
        return self._run(calls.unpark_examples(category), timeout)

    def pin_release(self, release: str, *, pinned: bool = True, timeout: float | None = None) -> states.Release:
        """Keep a release, or stop keeping it."""
        return self._run(calls.pin_release(release, pinned=pinned), timeout)

    def take_checkpoint(self, *, timeout: float | None = None) -> states.CheckpointTaken:
        """Keep a checkpoint of now: the release that serves, its position in the log, and the counters."""
        return self._run(calls.take_checkpoint(), timeout)

    def get_status(self, *, timeout: float | None = None) -> states.Status:
        """Return the state of the whole."""
        return self._run(calls.get_status(), timeout)

    def _run(self, call: Call[T], timeout: float | None) -> T:
        """Send a call within its deadline, again where that is allowed."""
        limit = time.monotonic() + (timeout or self._timeout or call.timeout)
        method = self._channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.reply.FromString,
        )
        attempt = 1
        while True:
            left = max(0.001, limit - time.monotonic())
            try:
                return call.read(method(call.request, timeout=left, metadata=self._metadata))
            except grpc.RpcError as failure:
                if not isinstance(failure, grpc.Call):
                    raise
                trailers = [(key, value) for key, value in failure.trailing_metadata() or ()]
                error = name_error(failure.code(), failure.details(), trailers)
                seconds = limit - time.monotonic()
                pause = self._retry.pause_before_next(
                    error, attempt=attempt, idempotent=call.idempotent, seconds_left=seconds
                )
                if pause is None:
                    raise error from failure
            time.sleep(pause)
            attempt += 1
