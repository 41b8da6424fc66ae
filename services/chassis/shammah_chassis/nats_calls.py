"""How a call to NATS is repeated and how its failures become named errors.

Knows nats-py's exceptions, nothing of what is called.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats.errors
import nats.js.errors

from shammah_chassis.errors import (
    ConflictError,
    InvalidInputError,
    ShammahError,
    StorageFullError,
    TooLongError,
    UnavailableError,
)

T = TypeVar("T")

# One attempt, and all attempts together (seconds): a call in flight when the server is killed waits its whole timeout,
# so attempts are short; a restarted server is back within 0.2 s of our next attempt.
ATTEMPT_SECONDS = 1.0
BUDGET_SECONDS = 5.0
_PAUSE_SECONDS = 0.05

# nats-server's errors.json: 10077 stream store failed ("maximum bytes exceeded", "no space left on device"),
# 10047 storage resources exceeded, 10028 account resources exceeded, 10122 stream needs more bytes than are left,
# 10023 insufficient resources (what publishing says at the server's own storage limit).
_FULL_CODES = frozenset({10077, 10047, 10028, 10122, 10023})
# 10071 and 10164: the expected last sequence is not the last one.
_CONFLICT_CODES = frozenset({10071, 10164})
# Answers that have a meaning for the caller.
_ANSWERS = (nats.js.errors.NotFoundError, nats.js.errors.DigestMismatchError)
_AWAY = (
    asyncio.TimeoutError,  # the parent of nats.errors.TimeoutError; nats-py raises either
    nats.errors.NoRespondersError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    ConnectionError,
)


async def call_nats(
    attempt: Callable[[], Awaitable[T]],
    *,
    what: str,
    connected: Callable[[], bool],
    budget: float = BUDGET_SECONDS,
) -> T:
    """Run `attempt` until it answers or `budget` seconds have passed; `attempt` must be safe to repeat.

    Raises:
        UnavailableError: NATS was away for the whole budget, or the connection is closed.
        StorageFullError: a stream is at its byte limit, or the server's disk is full.
        ConflictError: a compare-and-set that lost.
        TooLongError: the message is larger than the server takes.
        UnavailableError: also for an answer that has no meaning here.
        nats.js.errors.NotFoundError, nats.js.errors.DigestMismatchError: for the chassis's own modules to name.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + budget
    last: BaseException | None = None
    while True:
        # Nothing is sent while reconnecting: nats-py would buffer each attempt and send them all later.
        if connected():
            try:
                return await attempt()
            except (nats.errors.Error, TimeoutError, OSError) as error:
                named = name_error(error, what)
                if named is error:
                    if isinstance(error, _ANSWERS):
                        raise
                    raise UnavailableError(f"{what}: {error}") from error
                if not isinstance(named, UnavailableError):
                    raise named from error
                last = error
                if isinstance(error, nats.errors.ConnectionClosedError | nats.errors.ConnectionDrainingError):
                    raise named from error
        if loop.time() >= end:
            message = f"{what}: NATS did not answer within {budget:g} s"
            raise UnavailableError(message, retry_after_seconds=1.0) from last
        await asyncio.sleep(_PAUSE_SECONDS * (1 + random.random()))


def name_error(error: BaseException, what: str) -> ShammahError | nats.errors.Error | OSError:
    """Return the named error for one of nats-py's; what has no name of ours is returned as it is."""
    code = getattr(error, "err_code", None)
    text = str(getattr(error, "description", "") or error)
    if code in _FULL_CODES or "no space left" in text:
        return StorageFullError(f"{what}: NATS has no room: {text}", retry_after_seconds=60.0)
    if code in _CONFLICT_CODES or isinstance(error, nats.js.errors.KeyWrongLastSequenceError):
        return ConflictError(f"{what}: somebody else changed it first: {text}")
    if isinstance(error, nats.errors.MaxPayloadError):
        return TooLongError(f"{what}: the message is larger than NATS takes")
    if isinstance(error, nats.errors.BadSubjectError):
        return InvalidInputError(f"{what}: not allowed as a subject")
    if isinstance(error, (*_AWAY, nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError)):
        return UnavailableError(f"{what}: {text or type(error).__name__}", retry_after_seconds=1.0)
    if isinstance(error, nats.errors.Error | OSError):
        return error
    return UnavailableError(f"{what}: {error}")
