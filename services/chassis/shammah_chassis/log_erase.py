"""Erasing single messages of the example log and of the dead letters, for good.

JetStream overwrites an erased message's bytes with random ones. Which message has to go is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable

import nats.js.errors

from shammah_chassis.bus import Bus
from shammah_chassis.bus_values import LogMessage
from shammah_chassis.errors import PreconditionError
from shammah_chassis.streams import DEAD, EXAMPLES

# nats-server's errors.json: 10037 no message found, 10043 sequence not found, 10057 message delete not permitted.
_GONE_CODES = frozenset({10037, 10043})
_FORBIDDEN = 10057


async def read_message(bus: Bus, sequence: int) -> LogMessage | None:
    """Return one message of the example log; None when it is not there (any more). Raises UnavailableError.

    0 is the place of what stood in another log.
    """
    if sequence < 1:
        return None
    try:
        found = await bus.call(lambda: bus.jetstream.get_msg(EXAMPLES, seq=sequence), f"read log at {sequence}")
    except nats.js.errors.NotFoundError:
        return None
    return LogMessage(sequence=sequence, data=found.data or b"")


async def erase_message(bus: Bus, sequence: int) -> None:
    """Erase one message of the example log; one that is gone already is no error.

    Raises:
        UnavailableError: the bus is away. PreconditionError: the log forbids erasing.
    """
    await _erase(bus, EXAMPLES, sequence)


async def erase_dead_letters(bus: Bus, matches: Callable[[bytes], bool]) -> int:
    """Erase the dead letters whose bytes match; returns how many. Raises UnavailableError."""
    info = await bus.call(lambda: bus.jetstream.stream_info(DEAD), "dead letters")
    erased = 0
    for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        try:
            found = await bus.call(lambda at=sequence: bus.jetstream.get_msg(DEAD, seq=at), "read a dead letter")  # type: ignore[misc]
        except nats.js.errors.NotFoundError:
            continue
        if matches(found.data or b""):
            await _erase(bus, DEAD, sequence)
            erased += 1
    return erased


async def _erase(bus: Bus, stream: str, sequence: int) -> None:
    async def attempt() -> None:
        try:
            await bus.jetstream.delete_msg(stream, sequence)
        except nats.js.errors.NotFoundError:
            return
        except nats.js.errors.APIError as error:
            if error.err_code == _FORBIDDEN:
                raise PreconditionError(
                    f"stream {stream} was made by an earlier version and forbids erasing: copy it into a new one"
                ) from error
            # An attempt whose answer was lost has erased it.
            if error.err_code not in _GONE_CODES:
                raise

    await bus.call(attempt, f"erase {stream} {sequence}")
