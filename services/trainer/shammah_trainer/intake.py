"""From the example log to the ledger, for ever: first what the ledger lacks, then what comes; acked when durable.

A message is acknowledged only through the position whose round is durable, so that the consumer's floor in NATS never
says more than the releases do. It does not decode examples (`ingest`) nor start rounds (`triggers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from shammah_chassis.bus import Bus, LogMessage
from shammah_chassis.consumer import ExampleConsumer
from shammah_chassis.errors import ShammahError, UnavailableError

from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.log_change import follow_log
from shammah_trainer.round_log import durable_position

_LOG = logging.getLogger(__name__)
_FETCH = 64
_FETCH_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_ACK_WAIT_SECONDS = 600.0


class Intake:
    """Feeds the ledger; `executor` has one thread, which alone uses `ingest`.

    `covered` gives the champion's position in the log, as last seen.
    """

    def __init__(
        self, bus: Bus, ledger: Ledger, ingest: Ingest, executor: Executor, *, covered: Callable[[], int] = lambda: 0
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._ingest = ingest
        self._executor = executor
        self._covered = covered
        # Long: what is redelivered is only ignored, the ledger has it.
        self._consumer = ExampleConsumer(bus, ack_wait_seconds=_ACK_WAIT_SECONDS)

    async def catch_up(self) -> None:
        """Read from the log whatever the ledger lacks; a lost ledger is rebuilt, another log read, from the first."""
        await self._follow_this_log()
        async for message in self._bus.read_log(self._ledger.read_meta("sequence") + 1):
            await self._take(message)

    async def follow(self, on_change: Callable[[], None]) -> None:
        """Take messages as they come, until cancelled; a bus or disk that fails is tried again.

        What was fetched when it failed would come again after ten minutes: it is read from the log at once.
        """
        behind = False
        while True:
            try:
                if behind:
                    await self.catch_up()
                    behind = False
                messages = await self._consumer.fetch(_FETCH, _FETCH_SECONDS)
                for message in messages:
                    await self._take_in_order(message)
                if messages:
                    on_change()
                    await self.acknowledge()
                continue
            except ShammahError as error:
                _LOG.warning("intake: %s", error.message)
            except Exception:  # whatever it is, what comes later must not be lost with it
                _LOG.exception("intake failed; it goes on")
            behind = True
            await asyncio.sleep(_PAUSE_SECONDS)

    async def settle(self, seconds: float) -> None:
        """Wait until the ledger has what the log holds now, at most `seconds`; what comes later is the next round's.

        Raises:
            UnavailableError: the bus is away.
        """
        newest = await self._bus.last_sequence()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._ledger.read_meta("sequence") < newest:  # noqa: ASYNC110 - a file sends no event
                    await asyncio.sleep(_LOOK_SECONDS)

    async def acknowledge(self) -> None:
        """Acknowledge through the last position that a published round covers."""
        position = durable_position(self._ledger)
        if position:
            await self._consumer.ack_through(position)
            self._ledger.write_meta("acked", max(position, self._ledger.read_meta("acked")))

    async def close(self) -> None:
        """Stop reading."""
        await self._consumer.close()

    async def _follow_this_log(self) -> None:
        log = await self._bus.log_state()
        ledger, covered = self._ledger, self._covered()
        another = await asyncio.get_running_loop().run_in_executor(
            self._executor,
            lambda: follow_log(ledger, made=log.made, last_sequence=log.last_sequence, covered=covered),
        )
        if another:
            _LOG.warning("the example log is another one, or has lost its end: it is read from its first message")

    async def _take_in_order(self, message: LogMessage) -> None:
        """Take a message; if others were skipped (another reader had them), read those from the log first."""
        if message.sequence > self._ledger.read_meta("sequence") + 1:
            async for earlier in self._bus.read_log(self._ledger.read_meta("sequence") + 1):
                if earlier.sequence >= message.sequence:
                    break
                await self._take(earlier)
        await self._take(message)

    async def _take(self, message: LogMessage) -> None:
        loop = asyncio.get_running_loop()
        report = await loop.run_in_executor(self._executor, self._ingest.take_message, message.sequence, message.data)
        if report.poison:
            _LOG.warning("message %d is unreadable: %s", message.sequence, report.poison)
            await self._bury(message, report.poison)

    async def _bury(self, message: LogMessage, reason: str) -> None:
        """Send a message to the dead letters; the position has moved on, so nobody would do it later."""
        while True:
            try:
                await self._bus.dead_letter(message.data, reason, message.sequence)
            except UnavailableError as error:
                _LOG.warning("dead letter %d waits: %s", message.sequence, error.message)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return
