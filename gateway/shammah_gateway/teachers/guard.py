"""How a call to a remote teacher is made on a user's path: within a deadline, retried by our policy, past a breaker.

It knows no protocol: an attempt raises AttemptError when the server failed, or a TeacherError when it answered
something that is no answer (then it is neither retried nor held against the server).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from shammah_chassis.errors import TeacherError

from shammah_gateway.money.usage import UNKNOWN_USAGE
from shammah_gateway.teachers.breaker import Breaker, Permit
from shammah_gateway.teachers.faults import AttemptError, name_error, run_late
from shammah_gateway.teachers.ports import report_billed
from shammah_gateway.teachers.retry import RetryPolicy

Result = TypeVar("Result")
Sleep = Callable[[float], Awaitable[None]]


@contextmanager
def note_unseen(model: str) -> Iterator[None]:
    """Report a call of which nobody saw the end as billed, at a price that is not known. Around the transport only."""
    try:
        yield
    except AttemptError as failed:
        if failed.fault.unseen:
            report_billed(model, UNKNOWN_USAGE)
        raise
    except asyncio.CancelledError:
        # Our patience ran out, or the user went away.
        report_billed(model, UNKNOWN_USAGE)
        raise


class Guard:
    """Deadline, retries and breaker of one teacher. `seconds` is for a whole answer, pauses included."""

    def __init__(
        self,
        breaker: Breaker,
        *,
        policy: RetryPolicy,
        seconds: float,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.breaker = breaker
        self._policy = policy
        self._seconds = seconds
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter

    async def run(self, attempt: Callable[[], Awaitable[Result]], *, seconds: float | None = None) -> Result:
        """Return what an attempt returns; `seconds` bounds this answer further.

        Raises:
            TeacherError: the named error of the last attempt, or that the breaker lets no call through.
        """
        patience = self._seconds if seconds is None else min(self._seconds, seconds)
        deadline = self._clock() + patience
        tried, paused = 0, 0.0
        while True:
            permit = self.breaker.enter()
            if permit is None:
                raise self._refuse()
            try:
                return await self._try(attempt, permit, left=deadline - self._clock(), patience=patience)
            except AttemptError as failed:
                tried += 1
                pause = self._policy.find_pause(
                    failed.fault,
                    tried=tried,
                    paused=paused,
                    left=deadline - self._clock(),
                    jitter=self._jitter(),
                )
                if pause is None:
                    raise name_error(self.breaker.name, failed.fault) from failed
            await self._sleep(pause)
            paused += pause

    async def _try(
        self, attempt: Callable[[], Awaitable[Result]], permit: Permit, *, left: float, patience: float
    ) -> Result:
        try:
            try:
                async with asyncio.timeout(left):
                    result = await attempt()
            except TimeoutError as late:
                raise AttemptError(run_late(f"no answer within {patience:g} s")) from late
        except AttemptError as failed:
            permit.fail(failed.fault)
            raise
        except TeacherError:
            permit.succeed()
            raise
        else:
            permit.succeed()
            return result
        finally:
            # Only a cancelled call gets here with its permit unused.
            permit.drop()

    def _refuse(self) -> TeacherError:
        breaker = self.breaker
        text = f"teacher {breaker.name} is left alone after its errors: {breaker.reason}"
        fault = breaker.last_fault
        if fault is not None and fault.kind == "auth":
            # The same class as without a breaker: it is still the key.
            named = name_error(breaker.name, fault)
            return type(named)(text, retry_after_seconds=breaker.wait_seconds)
        return TeacherError(text, retry_after_seconds=breaker.wait_seconds)
